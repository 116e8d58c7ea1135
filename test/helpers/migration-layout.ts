/** Guest memory that changes while a guest moves. */
import type { MigrationEvent } from '../../lib/migration/options';
import { type Machine, MEMORY, type Place, type Rig } from './migration-rig';

/** Cases for migrations of any kind: what the guest is, and where it goes, is set up before each. */
export function memoryChanges(setUp: () => { rig: Rig; here: Place; there: Place; machine: Machine }): void {
  const at = 0x1_0000_0000;
  const size = 1 << 20;

  test('a region that is added during the rounds goes along, and so does that it is removed later', async () => {
    const { rig, here, there, machine } = setUp();
    const host = there.host();
    // The source has told of its regions; the answer comes after there is one more.
    host.compare = async () => {
      await machine.memory.addRegion({ gpa: at, size });
      machine.memory.write(at, Uint8Array.of(1, 2, 3));
      return [];
    };
    const { result, machine: moved } = await rig.migrate(machine, there, { host });
    expect(result.audit).toMatchObject({ differing: 0, total: MEMORY / 4096 + size / 4096 });
    expect([...moved.memory.read(at, 3)]).toEqual([1, 2, 3]);
    await rig.flows(moved);

    const back = here.host();
    let removed: Promise<void> | null = null;
    back.compare = async () => {
      // It goes between two rounds, so this waits until the rounds have begun.
      removed = moved.memory.removeRegion(at);
      return [];
    };
    const { result: second, machine: returned } = await rig.migrate(moved, here, { host: back });
    await removed;
    expect(second.audit).toMatchObject({ differing: 0, total: MEMORY / 4096 });
    expect(returned.memory.regions).toHaveLength(1);
    await rig.flows(returned);
  });

  test('while the guest is handed over guest memory keeps its layout', async () => {
    const { rig, there, machine } = setUp();
    let refused: Promise<unknown> | null = null;
    const onEvent = (event: MigrationEvent): void => {
      if (event.kind !== 'phase' || event.phase !== 'switchover') return;
      refused = machine.memory.addRegion({ gpa: at, size }).catch((error: unknown) => error);
    };
    const { result, machine: moved } = await rig.migrate(machine, there, { source: { onEvent } });
    expect(await refused).toMatchObject({ code: 'VHOST_ERR_STATE' });
    expect(result.audit).toMatchObject({ differing: 0, total: MEMORY / 4096 });
    await rig.flows(moved);
  });
}
