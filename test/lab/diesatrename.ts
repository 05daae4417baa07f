/**
 * For `node --import`: the program is killed when it is about to rename a file, after RENAMES others. What it was doing is then half
 * done, as after a crash in that moment.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const { renameSync } = fs;
let left = Number(process.env.RENAMES);

fs.renameSync = (from, to) => {
  if (left === 0) process.kill(process.pid, 'SIGKILL');
  left--;
  renameSync(from, to);
};
syncBuiltinESMExports();
