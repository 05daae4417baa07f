// In front of the bundle, in words that every Node understands: one that is too old would only say which module it lacks.
(function () {
  var version = process.versions.node.split('.');
  if (version[0] > 22 || (version[0] === '22' && version[1] >= 18)) return;
  process.stderr.write('tsmacvlan: this is Node ' + process.versions.node + ', and tsmacvlan needs 22.18 or later; install that, or use the managed plugin or make install, which bring their own\n');
  process.exit(1);
})();
