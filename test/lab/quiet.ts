/** A LAN on which nobody answers, for tests that are about something else. */
import type { Probe } from '../../src/ipam/driver.ts';

export const NOBODY_ANSWERS: Probe = async () => ({ held: false });
