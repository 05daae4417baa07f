/** The page's script and style as `make build` puts them together (plugin/page.ts): package.json says where `#page` is. */
declare module '#page' {
  export const script: string;
  export const style: string;
}
