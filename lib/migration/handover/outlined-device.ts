/** A device that is on its way here, as far as its data path can be prepared for it: everything but where its rings stand, and its doorbells. */
import type { BackendDevice } from '../../backend/backend';
import { DeviceLife } from '../../device/device-life';
import { validateDeviceState } from '../../device/device-state';
import type { GuestMemory } from '../../memory/guest-memory';

/** `value` is what VirtioNetDevice.outline gave; it is validated. */
export function outlinedDevice(value: unknown, memory: GuestMemory): BackendDevice {
  const state = validateDeviceState(value);
  const life = new DeviceLife({
    memory,
    properties: state.properties,
    offered: () => state.offered,
    notifiers: [],
    linkUp: () => state.config.linkUp,
  });
  life.adopt(state);
  return life;
}
