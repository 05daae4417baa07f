/** The rest of takers.test.ts: who takes an address that is kept on standby, also while the link of its parent fails. */
import { declareTakers } from '../lab/takerplay.ts';

declareTakers('standby');
