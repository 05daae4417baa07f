/** Who takes an address of a container, and when: the moments of a start, and LANs on which nobody does. */
import { declareTakers } from '../lab/takerplay.ts';

declareTakers('moments');
