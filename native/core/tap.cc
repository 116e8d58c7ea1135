#include "core/tap.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <cstring>

#include "core/netdev.h"
#include "core/netns.h"

namespace vhost_net {
namespace {

static_assert(sizeof(ifreq) == 40 && offsetof(ifreq, ifr_ifru) == 16);
static_assert(sizeof(tun_filter) == 4 && offsetof(tun_filter, addr) == 4);
static_assert(TUNSETIFF == 0x400454CA && TUNSETPERSIST == 0x400454CB && TUNSETOWNER == 0x400454CC);
static_assert(TUNSETGROUP == 0x400454CE && TUNGETFEATURES == 0x800454CF && TUNSETOFFLOAD == 0x400454D0);
static_assert(TUNSETTXFILTER == 0x400454D1 && TUNGETIFF == 0x800454D2 && TUNGETSNDBUF == 0x800454D3);
static_assert(TUNSETSNDBUF == 0x400454D4 && TUNGETVNETHDRSZ == 0x800454D7 && TUNSETVNETHDRSZ == 0x400454D8);
static_assert(TUNSETQUEUE == 0x400454D9 && TUNSETVNETLE == 0x400454DC && TUNGETVNETLE == 0x800454DD);
static_assert(TUNSETVNETBE == 0x400454DE && TUNGETVNETBE == 0x800454DF && TUNSETSTEERINGEBPF == 0x800454E0);
static_assert(TUNSETFILTEREBPF == 0x800454E1 && TUNSETCARRIER == 0x400454E2 && TUNGETDEVNETNS == 0x000054E3);

Result GetInt(int fd, unsigned long request) {
  int value = 0;
  return ioctl(fd, request, &value) < 0 ? -errno : static_cast<Result>(static_cast<unsigned int>(value));
}

Result SetInt(int fd, unsigned long request, int value) { return FromCall(ioctl(fd, request, &value)); }

/// For the requests that take the argument by value, whatever their number says about a size.
Result SetByValue(int fd, unsigned long request, unsigned long value) { return FromCall(ioctl(fd, request, value)); }

}  // namespace

Result OpenTap(const char* device, const char* netns, const char* name, int flags, UniqueFd* out, std::string* chosen) {
  const size_t length = strlen(name);
  if (length >= IFNAMSIZ) return -EINVAL;
  return RunInNetns(netns, [&]() -> Result {
    UniqueFd fd;
    // The interface belongs to the namespace of the thread that opens the device.
    Result opened = OpenFd(device, O_RDWR | O_NONBLOCK, &fd);
    if (opened < 0) return opened;
    ifreq request = {};
    memcpy(request.ifr_name, name, length);
    request.ifr_flags = static_cast<short>(flags);
    if (ioctl(fd.get(), TUNSETIFF, &request) < 0) return -errno;
    request.ifr_name[IFNAMSIZ - 1] = '\0';
    Result up = BringUp(request.ifr_name);
    if (up < 0) return up;
    *chosen = request.ifr_name;
    *out = std::move(fd);
    return 0;
  });
}

Result TunGetIff(int fd, TunInterface* out) {
  ifreq request = {};
  if (ioctl(fd, TUNGETIFF, &request) < 0) return -errno;
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  out->name = request.ifr_name;
  out->flags = static_cast<unsigned short>(request.ifr_flags);
  return 0;
}

Result TunGetFeatures(int fd) { return GetInt(fd, TUNGETFEATURES); }
Result TunSetPersist(int fd, int on) { return SetByValue(fd, TUNSETPERSIST, static_cast<unsigned long>(on)); }
Result TunSetOwner(int fd, uint32_t uid) { return SetByValue(fd, TUNSETOWNER, uid); }
Result TunSetGroup(int fd, uint32_t gid) { return SetByValue(fd, TUNSETGROUP, gid); }
Result TunSetOffload(int fd, unsigned int flags) { return SetByValue(fd, TUNSETOFFLOAD, flags); }

Result TunSetTxFilter(int fd, int flags, const uint8_t* macs, size_t count) {
  if (count > 0xffff || flags < 0 || flags > 0xffff) return -EINVAL;
  std::vector<uint8_t> bytes(sizeof(tun_filter) + count * 6);
  const tun_filter header = {static_cast<uint16_t>(flags), static_cast<uint16_t>(count)};
  memcpy(bytes.data(), &header, sizeof header);
  if (count > 0) memcpy(bytes.data() + sizeof header, macs, count * 6);
  return FromCall(ioctl(fd, TUNSETTXFILTER, bytes.data()));
}

Result TunGetSndbuf(int fd) { return GetInt(fd, TUNGETSNDBUF); }
Result TunSetSndbuf(int fd, int bytes) { return SetInt(fd, TUNSETSNDBUF, bytes); }
Result TunGetVnetHdrSz(int fd) { return GetInt(fd, TUNGETVNETHDRSZ); }
Result TunSetVnetHdrSz(int fd, int bytes) { return SetInt(fd, TUNSETVNETHDRSZ, bytes); }
Result TunGetVnetLe(int fd) { return GetInt(fd, TUNGETVNETLE); }
Result TunSetVnetLe(int fd, int on) { return SetInt(fd, TUNSETVNETLE, on); }
Result TunGetVnetBe(int fd) { return GetInt(fd, TUNGETVNETBE); }
Result TunSetVnetBe(int fd, int on) { return SetInt(fd, TUNSETVNETBE, on); }

Result TunSetQueue(int fd, int flags) {
  ifreq request = {};
  request.ifr_flags = static_cast<short>(flags);
  return FromCall(ioctl(fd, TUNSETQUEUE, &request));
}

Result TunSetSteeringEbpf(int fd, int program) { return SetInt(fd, TUNSETSTEERINGEBPF, program); }
Result TunSetFilterEbpf(int fd, int program) { return SetInt(fd, TUNSETFILTEREBPF, program); }
Result TunSetCarrier(int fd, int on) { return SetInt(fd, TUNSETCARRIER, on); }

Result TunGetDevNetns(int fd, UniqueFd* out) {
  const int netns = ioctl(fd, TUNGETDEVNETNS);
  if (netns < 0) return -errno;
  return AdoptFd(netns, out);
}

Result TapGetHwaddr(int fd, uint8_t* mac) {
  ifreq request = {};
  if (ioctl(fd, SIOCGIFHWADDR, &request) < 0) return -errno;
  memcpy(mac, request.ifr_hwaddr.sa_data, 6);
  return 0;
}

Result TapSetHwaddr(int fd, const uint8_t* mac) {
  ifreq request = {};
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, mac, 6);
  return FromCall(ioctl(fd, SIOCSIFHWADDR, &request));
}

}  // namespace vhost_net
