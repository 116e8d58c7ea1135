/** One order to the process that owns a guest. */
import { ControlClient } from '../migration/control-client';
import type { ControlMethod, ControlMethods } from '../migration/control-protocol';

/** Rejects with what was answered, or with why nobody could be asked. */
export async function order<Method extends ControlMethod>(
  control: string,
  method: Method,
  params: ControlMethods[Method]['params'],
): Promise<ControlMethods[Method]['result']> {
  const client = await ControlClient.connect(control);
  try {
    return await client.call(method, params);
  } finally {
    client.close();
  }
}
