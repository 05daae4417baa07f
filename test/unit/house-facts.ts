/** What the compiler's syntax tree says about the sources: their exports, who names them, and what has no doc comment. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

/** One exported declaration. */
export interface Exported {
  /** `lan/prober.ts` */
  readonly file: string;
  readonly name: string;
  readonly isDocumented: boolean;
  /** `Prober.probe`: the public methods and accessors of a class that have no doc comment. */
  readonly undocumentedMembers: readonly string[];
  readonly kind: 'class' | 'function' | 'value' | 'interface' | 'type';
}

/** The TypeScript files below a directory, relative to it. */
export function typescriptFiles(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.includes('node_modules'))
    .sort();
}

/** What a file of `directory` exports by declarations of its own; what it only passes on is not counted. */
export function exportsOf(directory: string, file: string): Exported[] {
  const source = parse(join(directory, file));
  return source.statements.flatMap((statement) => {
    if (!ts.canHaveModifiers(statement) || !isExported(statement)) return [];
    return namesOf(statement).map((name) => ({
      file,
      name,
      isDocumented: ts.getJSDocCommentsAndTags(statement).length > 0,
      undocumentedMembers: ts.isClassDeclaration(statement) ? undocumentedMembers(statement) : [],
      kind: kindOf(statement),
    }));
  });
}

/** Every identifier in a file, comments and texts left out: whatever it uses of other files is among them. */
export function identifiersOf(path: string): Set<string> {
  const found = new Set<string>();
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) found.add(node.text);
    ts.forEachChild(node, visit);
  };
  visit(parse(path));
  return found;
}

const parsed = new Map<string, ts.SourceFile>();

function parse(path: string): ts.SourceFile {
  const known = parsed.get(path);
  if (known !== undefined) return known;
  const source = ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true);
  parsed.set(path, source);
  return source;
}

function isExported(node: ts.HasModifiers): boolean {
  return ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true;
}

function namesOf(statement: ts.Statement): string[] {
  if (ts.isVariableStatement(statement))
    return statement.declarationList.declarations.flatMap(({ name }) => (ts.isIdentifier(name) ? name.text : []));
  const { name } = statement as ts.DeclarationStatement;
  return name !== undefined && ts.isIdentifier(name) ? [name.text] : [];
}

function kindOf(statement: ts.Statement): Exported['kind'] {
  if (ts.isClassDeclaration(statement)) return 'class';
  if (ts.isFunctionDeclaration(statement)) return 'function';
  if (ts.isInterfaceDeclaration(statement)) return 'interface';
  return ts.isVariableStatement(statement) ? 'value' : 'type';
}

/** A class that implements an interface has the comments of its members there. */
function undocumentedMembers(declaration: ts.ClassDeclaration): string[] {
  if (declaration.heritageClauses?.some(({ token }) => token === ts.SyntaxKind.ImplementsKeyword)) return [];
  return declaration.members.flatMap((member) => {
    const isCalled = ts.isMethodDeclaration(member) || ts.isAccessor(member);
    if (!isCalled || ts.isPrivateIdentifier(member.name) || isPrivate(member)) return [];
    if (ts.getJSDocCommentsAndTags(member).length > 0) return [];
    return `${declaration.name?.text}.${member.name.getText()}`;
  });
}

function isPrivate(node: ts.HasModifiers): boolean {
  const hidden = [ts.SyntaxKind.PrivateKeyword, ts.SyntaxKind.ProtectedKeyword];
  return ts.getModifiers(node)?.some(({ kind }) => hidden.includes(kind)) === true;
}
