#include "core/write_witness.h"

#include <fcntl.h>
#include <linux/types.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <iterator>

namespace vhost_net {
namespace {

// include/uapi/linux/userfaultfd.h and fs.h as of Linux 6.7, written out because older headers lack them.
constexpr int kUffdUserModeOnly = 1;
constexpr uint64_t kUffdApi = 0xAA;
constexpr uint64_t kUffdFeatureWpHugetlbfsShmem = 1 << 12;
constexpr uint64_t kUffdFeatureWpUnpopulated = 1 << 13;
constexpr uint64_t kUffdFeatureWpAsync = 1 << 15;
constexpr uint64_t kWitnessFeatures = kUffdFeatureWpHugetlbfsShmem | kUffdFeatureWpUnpopulated | kUffdFeatureWpAsync;
static_assert(kWitnessFeatures == 0xB000);
constexpr uint64_t kUffdRegisterModeWp = 2;
constexpr uint64_t kUffdWriteprotectModeWp = 1;

struct UffdioApi {
  uint64_t api, features, ioctls;
};
struct UffdioRegister {
  uint64_t start, len, mode, ioctls;
};
struct UffdioWriteprotect {
  uint64_t start, len, mode;
};
struct PageRegion {
  uint64_t start, end, categories;
};
struct PmScanArg {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
static_assert(sizeof(UffdioApi) == 24 && sizeof(UffdioRegister) == 32 && sizeof(UffdioWriteprotect) == 24);
static_assert(sizeof(PageRegion) == 24 && sizeof(PmScanArg) == 96);

constexpr unsigned long kUffdioApi = _IOWR(0xAA, 0x3F, UffdioApi);
constexpr unsigned long kUffdioRegister = _IOWR(0xAA, 0x00, UffdioRegister);
constexpr unsigned long kUffdioWriteprotect = _IOWR(0xAA, 0x06, UffdioWriteprotect);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
static_assert(kUffdioApi == 0xC018AA3F && kUffdioRegister == 0xC020AA00 && kUffdioWriteprotect == 0xC018AA06);
static_assert(kPagemapScan == 0xC0606610);
constexpr uint64_t kPmScanWpMatching = 1;
constexpr uint64_t kPmScanCheckWpasync = 2;
constexpr uint64_t kPageIsWritten = 2;

uint64_t MappedLength(const Mapping& mapping) { return (mapping.length() + kPageSize - 1) & ~(kPageSize - 1); }

}  // namespace

Result StartWriteWitness(const Mapping& mapping, UniqueFd* out) {
  UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUffdUserModeOnly)));
  if (!fd) return -errno;
  UffdioApi api = {kUffdApi, kWitnessFeatures, 0};
  if (ioctl(fd.get(), kUffdioApi, &api) < 0) return -errno;
  UffdioRegister range = {mapping.address(), MappedLength(mapping), kUffdRegisterModeWp, 0};
  if (ioctl(fd.get(), kUffdioRegister, &range) < 0) return -errno;
  UffdioWriteprotect protect = {range.start, range.len, kUffdWriteprotectModeWp};
  if (ioctl(fd.get(), kUffdioWriteprotect, &protect) < 0) return -errno;
  // A kernel without PAGEMAP_SCAN must be found out here, not in the middle of a test.
  std::vector<FileRange> none;
  Result scanned = TakeWritten(mapping, &none);
  if (scanned < 0) return scanned;
  *out = std::move(fd);
  return 0;
}

Result TakeWritten(const Mapping& mapping, std::vector<FileRange>* out) {
  out->clear();
  UniqueFd pagemap;
  Result opened = OpenFd("/proc/self/pagemap", O_RDONLY, &pagemap);
  if (opened < 0) return opened;
  const uint64_t begin = mapping.address();
  const uint64_t end = begin + MappedLength(mapping);
  PageRegion regions[256];
  for (uint64_t start = begin; start < end;) {
    PmScanArg scan = {};
    scan.size = sizeof scan;
    scan.flags = kPmScanWpMatching | kPmScanCheckWpasync;
    scan.start = start;
    scan.end = end;
    scan.vec = reinterpret_cast<uint64_t>(regions);
    scan.vec_len = std::size(regions);
    scan.category_mask = kPageIsWritten;
    scan.return_mask = kPageIsWritten;
    const int found = ioctl(pagemap.get(), kPagemapScan, &scan);
    if (found < 0 && errno == EINTR) continue;
    if (found < 0) return -errno;
    for (int i = 0; i < found; i++) out->push_back({regions[i].start - begin, regions[i].end - regions[i].start});
    if (scan.walk_end <= start) break;
    start = scan.walk_end;
  }
  return 0;
}

}  // namespace vhost_net
