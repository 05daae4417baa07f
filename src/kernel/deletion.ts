/**
 * Deletion of links, on a socket of its own so that nothing else waits behind it. The kernel takes some 16 ms for one
 * RTM_DELLINK (it waits for RCU grace periods) but hardly more for a whole group of links. So the links that are asked
 * for while a deletion runs go together, by a random group in which there is nothing else (rtnl_group_dellink).
 */
import { randomInt } from 'node:crypto';
import { isKernelError } from './errno.ts';
import { RTM_DELLINK, RTM_SETLINK, linkBody, linkGroup } from './message.ts';
import type { Answer, Request } from './netlink.ts';
import { RtnetlinkSocket } from './rtnetlink.ts';
import type { NetlinkTrace } from './trace.ts';

interface Task {
  readonly index: number;
  readonly resolve: (existed: boolean) => void;
  readonly reject: (error: Error) => void;
}

/** Deletes links on its own socket, those that come together as one group. close() ends it. */
export class Deletions {
  readonly #socket: RtnetlinkSocket;
  readonly #waiting: Task[] = [];
  #isRunning = false;

  constructor(trace: NetlinkTrace | null) {
    this.#socket = RtnetlinkSocket.open(trace);
  }

  /** False when it was gone already. */
  delete(index: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ index, resolve, reject });
      if (!this.#isRunning) void this.#run();
    });
  }

  /** A deletion under way is finished, those that wait fail. */
  close(): void {
    this.#socket.close();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#waiting.length > 0) {
      const tasks = this.#waiting.splice(0, RtnetlinkSocket.BATCH_LIMIT - 1);
      const left = tasks.length === 1 ? tasks : await this.#deleteTogether(tasks);
      for (const task of left) await this.#deleteAlone(task);
    }
    this.#isRunning = false;
  }

  async #deleteAlone(task: Task): Promise<void> {
    try {
      const [answer] = await this.#socket.batch(`delete link ${task.index}`, [deleteLink({ index: task.index })]);
      settle(task, answer);
    } catch (error) {
      task.reject(error as Error);
    }
  }

  /** The tasks that have to be done one by one, because the kernel refuses a group for one link it cannot delete. */
  async #deleteTogether(tasks: Task[]): Promise<Task[]> {
    const group = randomInt(2 ** 30, 2 ** 31);
    try {
      const grouped = tasks.map(({ index }) => setGroup(index, group));
      const answers = await this.#socket.batch('delete links', [...grouped, deleteLink({}, linkGroup(group))]);
      const refusal = answers.at(-1)?.error ?? null;
      if (refusal === null || isKernelError(refusal, 'ENODEV')) {
        for (const [position, task] of tasks.entries()) settle(task, answers[position]);
        return [];
      }
      await this.#socket.batch(
        'delete links',
        tasks.map(({ index }) => setGroup(index, 0)),
      );
    } catch {
      // Whatever stops a batch is met again, and told, one by one.
    }
    return tasks;
  }
}

function deleteLink(header: { index?: number }, ...attributes: Buffer[]): Request {
  return { type: RTM_DELLINK, flags: 0, body: linkBody(header, ...attributes) };
}

function setGroup(index: number, group: number): Request {
  return { type: RTM_SETLINK, flags: 0, body: linkBody({ index }, linkGroup(group)) };
}

function settle({ resolve, reject }: Task, answer: Answer | undefined): void {
  const error = answer?.error ?? null;
  if (error === null || isKernelError(error, 'ENODEV')) resolve(error === null);
  else reject(error);
}
