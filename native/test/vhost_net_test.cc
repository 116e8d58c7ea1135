#include "core/vhost_net.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <cstring>

#include "test/check.h"

namespace vhost_net {
namespace {

std::shared_ptr<Mapping> NewMapping() {
  std::shared_ptr<Mapping> mapping;
  Mapping::Create(-1, 0, 65536, 0, 3, &mapping);
  return mapping;
}

/// A reference to a mapping that, when it goes as the last, tells whether the descriptor `fd` was closed by then.
std::shared_ptr<Mapping> Witness(int fd, bool* closed_before) {
  auto mapping = NewMapping();
  return std::shared_ptr<Mapping>(mapping.get(),
                                  [mapping, fd, closed_before](Mapping*) { *closed_before = fcntl(fd, F_GETFD) < 0; });
}

/// The fault that the order is there to prevent: members in this order die the other way round.
struct UnmapsFirst {
  UniqueFd fd;
  std::shared_ptr<Mapping> mapping;
};

}  // namespace

TEST(vhost_closes_before_it_unmaps) {
  for (bool explicitly : {true, false}) {
    bool closed_before = false;
    {
      VhostNet device{UniqueFd(eventfd(0, EFD_CLOEXEC))};
      auto log = Witness(device.fd(), &closed_before);
      CHECK_EQUAL(device.SetLogBase(log->address(), log), -ENOTTY);
      log.reset();
      if (explicitly) device.Close();
    }
    CHECK(closed_before);
  }
  bool closed_before = true;
  {
    UnmapsFirst wrong = {UniqueFd(eventfd(0, EFD_CLOEXEC)), nullptr};
    wrong.mapping = Witness(wrong.fd.get(), &closed_before);
  }
  CHECK(!closed_before);
}

TEST(vhost_without_a_device_reports_the_kernel) {
  VhostNet device{UniqueFd(eventfd(0, EFD_CLOEXEC))};
  uint64_t words[2] = {};
  CHECK_EQUAL(device.SetOwner(), -ENOTTY);
  CHECK_EQUAL(device.GetFeatures(words), -ENOTTY);
  CHECK_EQUAL(device.GetFeaturesArray(words), -ENOTTY);
  CHECK_EQUAL(device.GetForkFromOwner(), -ENOTTY);
  CHECK_EQUAL(device.NewWorker(), -ENOTTY);
  CHECK_EQUAL(device.GetVringBase(0), -ENOTTY);
  uint8_t argument[8] = {};
  CHECK_EQUAL(device.Ioctl(0x8008AF00, argument, sizeof argument), -ENOTTY);
  CHECK_EQUAL(device.Ioctl(0x8008AF00, nullptr, 0), -ENOTTY);
  device.Close();
  CHECK_EQUAL(device.fd(), -1);
  CHECK_EQUAL(device.SetOwner(), -EBADF);
  UniqueFd fd;
  CHECK_EQUAL(OpenVhostNet("/nonexistent", &fd), -ENOENT);
}

TEST(vhost_holds_what_a_failed_log_base_may_have_set) {
  const int64_t live = Mapping::Live();
  {
    VhostNet device{UniqueFd(eventfd(0, EFD_CLOEXEC))};
    for (int i = 0; i < 3; i++) {
      auto log = NewMapping();
      CHECK_EQUAL(device.SetLogBase(log->address(), log), -ENOTTY);
      CHECK_EQUAL(device.SetLogBase(log->address(), log), -ENOTTY);
    }
    CHECK_EQUAL(Mapping::Live(), live + 3);
    // A table is set as a whole: what failed was not taken.
    auto ram = NewMapping();
    CHECK_EQUAL(device.SetMemTable({{0, 65536, ram->address()}}, {ram}, 0), -ENOTTY);
    ram.reset();
    CHECK_EQUAL(Mapping::Live(), live + 3);
  }
  CHECK_EQUAL(Mapping::Live(), live);
}

TEST(vhost_real_device) {
  UniqueFd fd;
  const Result opened = OpenVhostNet("/dev/vhost-net", &fd);
  if (opened < 0) return SKIP("no /dev/vhost-net");
  const int64_t live = Mapping::Live();
  {
    VhostNet device(std::move(fd));
    uint64_t features = 0;
    CHECK_EQUAL(device.GetFeatures(&features), 0);
    CHECK((features & (uint64_t{1} << 32)) != 0);
    CHECK_EQUAL(device.SetOwner(), 0);
    CHECK_EQUAL(device.SetOwner(), -EBUSY);
    auto ram = NewMapping();
    const uint64_t first = ram->address();
    CHECK_EQUAL(device.SetMemTable({{0, 65536, first}}, {ram}, 1), -EOPNOTSUPP);
    CHECK_EQUAL(device.SetMemTable({{0, 65536, first}}, {ram}, 0), 0);
    ram.reset();
    CHECK_EQUAL(Mapping::Live(), live + 1);
    CHECK_EQUAL(device.SetVringAddr({0, 0, first, first + 8192, first + 4096, 0}), 0);
    CHECK_EQUAL(device.SetVringAddr({1, 2, first, first + 8192, first + 4096, 0}), -EOPNOTSUPP);

    auto next = NewMapping();
    CHECK_EQUAL(device.SetMemTable({{0, 65536, next->address()}}, {next}, 0), 0);
    // Ring 0 still lies in the first.
    CHECK_EQUAL(Mapping::Live(), live + 2);
    const uint64_t second = next->address();
    next.reset();
    CHECK_EQUAL(device.SetVringAddr({0, 0, second, second + 8192, second + 4096, 0}), 0);
    CHECK_EQUAL(Mapping::Live(), live + 1);

    auto log = NewMapping();
    CHECK_EQUAL(device.SetLogBase(log->address(), log), 0);
    log = NewMapping();
    CHECK_EQUAL(device.SetLogBase(log->address(), log), 0);
    log.reset();
    CHECK_EQUAL(Mapping::Live(), live + 2);
    CHECK_EQUAL(device.SetLogBase(0, nullptr), 0);
    CHECK_EQUAL(Mapping::Live(), live + 1);
    CHECK_EQUAL(device.ResetOwner(), 0);
    CHECK_EQUAL(Mapping::Live(), live);

    uint8_t features_bytes[8] = {}, short_bytes[4] = {};
    CHECK_EQUAL(device.Ioctl(0x8008AF00, features_bytes, 8), 0);
    CHECK_EQUAL(memcmp(features_bytes, &features, 8), 0);
    CHECK_EQUAL(device.Ioctl(0x8008AF00, short_bytes, 4), -EFAULT);
    CHECK_EQUAL(device.Ioctl(0x8008AF00, nullptr, 0), -EFAULT);
  }
}

}  // namespace vhost_net
