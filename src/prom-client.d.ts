/**
 * The parts of prom-client that are used, each by its own file: its front door loads a push gateway, TLS and more. Their types are
 * those of the package.
 */
declare module 'prom-client/lib/counter.js' {
  import type { Counter } from 'prom-client';

  const part: typeof Counter;
  export default part;
}

declare module 'prom-client/lib/gauge.js' {
  import type { Gauge } from 'prom-client';

  const part: typeof Gauge;
  export default part;
}

declare module 'prom-client/lib/histogram.js' {
  import type { Histogram } from 'prom-client';

  const part: typeof Histogram;
  export default part;
}

declare module 'prom-client/lib/registry.js' {
  import type { Registry } from 'prom-client';

  const part: typeof Registry;
  export default part;
}
