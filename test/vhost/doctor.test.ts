/** The doctor on a machine that has the device. */
import { diagnose, verdict } from '../../lib/host/doctor';

test('finds what is there', async () => {
  const findings = await diagnose();
  expect(verdict(findings)).toBe('here');
  const value = (name: string): string => findings.find((finding) => finding.name === name)?.value ?? 'no such finding';
  expect(value('vhost-net features')).toMatch(/VIRTIO_NET_F_MRG_RXBUF.*VHOST_F_LOG_ALL.*VIRTIO_F_VERSION_1/);
  expect(value('vhost.max_mem_regions')).toMatch(/^\d+ /);
  expect(value('vhost_net.experimental_zcopytx')).toMatch(/^\d /);
  expect(value('tap features')).toMatch(/IFF_VNET_HDR/);
  expect(value('a tap can be made')).toMatch(/offloads 0x[1-9a-f]/);
});
