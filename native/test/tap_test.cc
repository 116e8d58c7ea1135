#include "core/tap.h"

#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <cstring>
#include <thread>

#include "core/netdev.h"
#include "core/netns.h"
#include "test/check.h"

namespace vhost_net {
namespace {

constexpr int kFlags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

/// A namespace of our own that nobody else sees and that ends with its last descriptor.
std::string NewNetns(UniqueFd* fd) {
  Result result = -EPERM;
  std::thread maker([&] {
    if (unshare(CLONE_NEWNET) == 0) result = OpenFd("/proc/thread-self/ns/net", O_RDONLY, fd);
  });
  maker.join();
  return result < 0 ? "" : "/proc/self/fd/" + std::to_string(fd->get());
}

uint64_t Inode(const char* path) {
  struct stat status = {};
  stat(path, &status);
  return status.st_ino;
}

}  // namespace

TEST(netns_is_entered_by_one_thread_only) {
  UniqueFd netns;
  const std::string path = NewNetns(&netns);
  if (path.empty()) return SKIP("needs CAP_SYS_ADMIN");
  const uint64_t here = Inode("/proc/thread-self/ns/net");
  uint64_t there = 0;
  CHECK_EQUAL(RunInNetns(path.c_str(),
                         [&]() -> Result {
                           there = Inode("/proc/thread-self/ns/net");
                           return 42;
                         }),
              42);
  CHECK_EQUAL(there, Inode(path.c_str()));
  CHECK(there != here);
  CHECK_EQUAL(Inode("/proc/thread-self/ns/net"), here);
  CHECK_EQUAL(RunInNetns(nullptr, []() -> Result { return 7; }), 7);
  CHECK_EQUAL(RunInNetns("/nonexistent", []() -> Result { return 7; }), -ENOENT);
  CHECK_EQUAL(RunInNetns("/dev/null", []() -> Result { return 7; }), -EINVAL);
}

TEST(tap_in_a_namespace) {
  UniqueFd netns;
  const std::string path = NewNetns(&netns);
  if (path.empty()) return SKIP("needs CAP_SYS_ADMIN");
  UniqueFd tap, second, none;
  std::string name, second_name;
  CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "q%d", kFlags | IFF_MULTI_QUEUE, &tap, &name), 0);
  CHECK(name == "q0");
  CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "q0", kFlags | IFF_MULTI_QUEUE, &second, &second_name), 0);
  CHECK(second_name == "q0");
  CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "q0", kFlags, &none, &second_name), -EINVAL);
  CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "a-name-of-16-byte", kFlags, &none, &second_name), -EINVAL);
  CHECK_EQUAL(OpenTap("/dev/null", path.c_str(), "x", kFlags, &none, &second_name), -ENOTTY);
  CHECK(!none);
  CHECK_EQUAL(TunSetQueue(second.get(), IFF_DETACH_QUEUE), 0);
  CHECK_EQUAL(TunSetQueue(second.get(), IFF_ATTACH_QUEUE), 0);
  CHECK_EQUAL(TunSetQueue(second.get(), IFF_ATTACH_QUEUE), -EINVAL);

  TunInterface interface;
  CHECK_EQUAL(TunGetIff(tap.get(), &interface), 0);
  CHECK(interface.name == "q0");
  CHECK_EQUAL(interface.flags & (kFlags | IFF_MULTI_QUEUE), kFlags | IFF_MULTI_QUEUE);
  CHECK((TunGetFeatures(tap.get()) & IFF_VNET_HDR) != 0);
  const auto netdev = [&](unsigned long what, int value) {
    return RunInNetns(path.c_str(), [&] { return NetdevRequest("q0", what, value); });
  };
  CHECK((netdev(SIOCGIFFLAGS, 0) & 1) == 1);
  CHECK_EQUAL(netdev(SIOCGIFTXQLEN, 0), 1000);
  CHECK_EQUAL(netdev(SIOCSIFTXQLEN, 1064), 0);
  CHECK_EQUAL(netdev(SIOCGIFTXQLEN, 0), 1064);
  CHECK_EQUAL(netdev(SIOCSIFMTU, 9000), 0);
  CHECK_EQUAL(netdev(SIOCGIFMTU, 0), 9000);
  CHECK(netdev(SIOCGIFINDEX, 0) > 0);
  CHECK_EQUAL(netdev(SIOCGIFHWADDR, 0), -EINVAL);
  CHECK_EQUAL(NetdevRequest("q0", SIOCGIFMTU, 0), -ENODEV);
  CHECK_EQUAL(NetdevRequest("", SIOCGIFMTU, 0), -EINVAL);
}

TEST(tap_options) {
  UniqueFd netns;
  const std::string path = NewNetns(&netns);
  if (path.empty()) return SKIP("needs CAP_SYS_ADMIN");
  UniqueFd tap;
  std::string name;
  CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "", kFlags, &tap, &name), 0);
  CHECK(!name.empty());
  const int fd = tap.get();
  CHECK_EQUAL(TunGetVnetHdrSz(fd), 10);
  CHECK_EQUAL(TunSetVnetHdrSz(fd, 12), 0);
  CHECK_EQUAL(TunGetVnetHdrSz(fd), 12);
  CHECK_EQUAL(TunSetVnetHdrSz(fd, 9), -EINVAL);
  CHECK_EQUAL(TunGetSndbuf(fd), 0x7fffffff);
  CHECK_EQUAL(TunSetSndbuf(fd, 100000), 0);
  CHECK_EQUAL(TunGetSndbuf(fd), 100000);
  CHECK_EQUAL(TunSetSndbuf(fd, 0), -EINVAL);
  CHECK_EQUAL(TunSetVnetLe(fd, 1), 0);
  CHECK_EQUAL(TunGetVnetLe(fd), 1);
  CHECK_EQUAL(TunSetOffload(fd, 1), 0);
  CHECK_EQUAL(TunSetOffload(fd, 2), -EINVAL);
  CHECK_EQUAL(TunSetCarrier(fd, 0), 0);
  const uint8_t mac[6] = {2, 0, 0, 0, 0, 7};
  uint8_t read[6] = {};
  CHECK_EQUAL(TapSetHwaddr(fd, mac), 0);
  CHECK_EQUAL(TapGetHwaddr(fd, read), 0);
  CHECK_EQUAL(memcmp(mac, read, 6), 0);
  CHECK_EQUAL(TunSetTxFilter(fd, 0, mac, 1), 1);
  CHECK_EQUAL(TunSetTxFilter(fd, 0, nullptr, 0), 0);
  CHECK_EQUAL(TunSetTxFilter(fd, -1, mac, 1), -EINVAL);
  UniqueFd device_netns;
  CHECK_EQUAL(TunGetDevNetns(fd, &device_netns), 0);
  const std::string found = "/proc/self/fd/" + std::to_string(device_netns.get());
  CHECK_EQUAL(Inode(found.c_str()), Inode(path.c_str()));
  CHECK_EQUAL(TunSetQueue(fd, IFF_DETACH_QUEUE), -EINVAL);
  CHECK_EQUAL(TunGetVnetHdrSz(-1), -EBADF);
}

TEST(tap_filter_is_told_only_to_who_attached_it) {
  UniqueFd netns;
  const std::string path = NewNetns(&netns);
  if (path.empty()) return SKIP("needs CAP_SYS_ADMIN");
  UniqueFd tap;
  std::string name;
  CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "", kFlags, &tap, &name), 0);
  // BPF_RET | BPF_K, 0: drop everything.
  const uint8_t drop[8] = {6, 0, 0, 0, 0, 0, 0, 0};
  TapFilter filter, stranger;
  std::vector<uint8_t> program = {1};
  CHECK_EQUAL(filter.Get(tap.get(), &program), 0);
  CHECK_EQUAL(program.size(), 0u);
  CHECK_EQUAL(filter.Attach(tap.get(), drop, 0), -EINVAL);
  CHECK_EQUAL(filter.Attach(tap.get(), drop, 1), 0);
  CHECK_EQUAL(filter.Get(tap.get(), &program), 0);
  CHECK(program == std::vector<uint8_t>(drop, drop + 8));
  CHECK_EQUAL(stranger.Get(tap.get(), &program), -ENODATA);
  CHECK_EQUAL(filter.Detach(tap.get()), 0);
  CHECK_EQUAL(filter.Get(tap.get(), &program), 0);
  CHECK_EQUAL(program.size(), 0u);
}

TEST(frames_stop_at_the_first_failure) {
  UniqueFd netns;
  const std::string path = NewNetns(&netns);
  if (path.empty()) return SKIP("needs CAP_SYS_ADMIN");
  UniqueFd tap;
  std::string name;
  CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "", IFF_TAP | IFF_NO_PI, &tap, &name), 0);
  std::vector<uint8_t> arena(4 * 128, 0xff);
  int32_t lengths[4] = {60, 60, 5, 60};
  // A frame shorter than an Ethernet header is refused by the tap.
  CHECK_EQUAL(WriteFrames(tap.get(), arena.data(), 128, 4, lengths), 2);
  CHECK_EQUAL(WriteFrames(tap.get(), arena.data() + 256, 128, 1, lengths + 2), -EINVAL);
  lengths[0] = 129;
  CHECK_EQUAL(WriteFrames(tap.get(), arena.data(), 128, 1, lengths), -EINVAL);
  lengths[0] = -1;
  CHECK_EQUAL(WriteFrames(tap.get(), arena.data(), 128, 1, lengths), -EINVAL);
  CHECK_EQUAL(ReadFrames(-1, arena.data(), 128, 4, lengths), -EBADF);
  CHECK_EQUAL(ReadFrames(tap.get(), arena.data(), 128, 0, lengths), 0);
}

TEST(taps_do_not_leak) {
  UniqueFd netns;
  const std::string path = NewNetns(&netns);
  if (path.empty()) return SKIP("needs CAP_SYS_ADMIN");
  const int fds = test::OpenFds();
  for (int i = 0; i < 50; i++) {
    UniqueFd tap;
    std::string name;
    if (!CHECK_EQUAL(OpenTap("/dev/net/tun", path.c_str(), "leak", kFlags, &tap, &name), 0)) return;
  }
  CHECK_EQUAL(test::OpenFds(), fds);
}

}  // namespace vhost_net
