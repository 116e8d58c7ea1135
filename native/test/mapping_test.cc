#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "core/mapping.h"
#include "test/check.h"

namespace vhost_net {
namespace {

constexpr uint64_t kPage = 4096;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

void Touch(volatile uint8_t* byte) { *byte = 1; }

}  // namespace

TEST(mapping_shares_the_file_and_counts) {
  const int64_t live = Mapping::Live();
  {
    UniqueFd fd;
    CHECK_EQUAL(CreateMemfd("m", 16 * kPage, 0, &fd), 0);
    std::shared_ptr<Mapping> one, two;
    CHECK_EQUAL(Mapping::Create(fd.get(), 0, 16 * kPage, 0, kReadWrite, &one), 0);
    CHECK_EQUAL(Mapping::Create(fd.get(), 4 * kPage, kPage, 0, kReadWrite, &two), 0);
    CHECK_EQUAL(Mapping::Live(), live + 2);
    two->data()[9] = 77;
    CHECK_EQUAL(one->data()[4 * kPage + 9], 77);
    CHECK(one->Contains(one->address()) && one->Contains(one->address() + 16 * kPage - 1));
    CHECK(!one->Contains(one->address() - 1) && !one->Contains(one->address() + 16 * kPage));
  }
  CHECK_EQUAL(Mapping::Live(), live);
}

TEST(mapping_has_guard_pages) {
  UniqueFd fd;
  CHECK_EQUAL(CreateMemfd("m", 2 * kPage, 0, &fd), 0);
  std::shared_ptr<Mapping> mapping;
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, 2 * kPage, 0, kReadWrite, &mapping), 0);
  uint8_t* data = mapping->data();
  CHECK_EQUAL(test::SignalOf([=] { Touch(data); }), 0);
  CHECK_EQUAL(test::SignalOf([=] { Touch(data + 2 * kPage - 1); }), 0);
  CHECK_EQUAL(test::SignalOf([=] { Touch(data - 1); }), SIGSEGV);
  CHECK_EQUAL(test::SignalOf([=] { Touch(data + 2 * kPage); }), SIGSEGV);

  std::shared_ptr<Mapping> read_only;
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, kPage, 0, PROT_READ, &read_only), 0);
  CHECK_EQUAL(test::SignalOf([&] { Touch(read_only->data()); }), SIGSEGV);
}

TEST(mapping_is_aligned) {
  for (uint64_t align : {kPage, uint64_t{2} << 20, uint64_t{1} << 30}) {
    std::shared_ptr<Mapping> mapping;
    CHECK_EQUAL(Mapping::Create(-1, 0, 3 * kPage, align, kReadWrite, &mapping), 0);
    CHECK_EQUAL(mapping->address() % align, 0u);
    memset(mapping->data(), 1, 3 * kPage);
  }
}

TEST(mapping_refuses) {
  UniqueFd fd;
  CHECK_EQUAL(CreateMemfd("m", 4 * kPage, 0, &fd), 0);
  std::shared_ptr<Mapping> mapping;
  const int64_t live = Mapping::Live();
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, 0, 0, kReadWrite, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(fd.get(), 1, kPage, 0, kReadWrite, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, kPage, 3, kReadWrite, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, kPage, 0, PROT_EXEC, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, 4 * kPage + 1, 0, kReadWrite, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(fd.get(), 4 * kPage, kPage, 0, kReadWrite, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(fd.get(), 0, ~uint64_t{0}, 0, kReadWrite, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(fd.get(), ~uint64_t{0} & ~(kPage - 1), 2 * kPage, 0, kReadWrite, &mapping), -EINVAL);
  CHECK_EQUAL(Mapping::Create(1 << 20, 0, kPage, 0, kReadWrite, &mapping), -EBADF);
  CHECK_EQUAL(Mapping::Live(), live);
  CHECK(mapping == nullptr);
}

TEST(memfd_is_sealed) {
  UniqueFd fd;
  CHECK_EQUAL(CreateMemfd("m", 4 * kPage, 0, &fd), 0);
  CHECK(ftruncate(fd.get(), 0) < 0 && errno == EPERM);
  CHECK(ftruncate(fd.get(), 8 * kPage) < 0 && errno == EPERM);
  CHECK_EQUAL(fcntl(fd.get(), F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  CHECK_EQUAL(CreateMemfd("m", 0, 0, &fd), -EINVAL);
  CHECK_EQUAL(CreateMemfd("m", kPage, 3, &fd), -EINVAL);
  CHECK_EQUAL(CreateMemfd("m", kPage, 2 << 20, &fd), -EINVAL);
}

TEST(huge_pages) {
  UniqueFd fd;
  const uint64_t huge = uint64_t{2} << 20;
  const Result created = CreateMemfd("huge", 2 * huge, huge, &fd);
  if (created < 0) return SKIP("no hugetlbfs");
  std::shared_ptr<Mapping> mapping;
  const Result mapped = Mapping::Create(fd.get(), 0, 2 * huge, 0, kReadWrite, &mapping);
  if (mapped == -ENOMEM) return SKIP("no huge pages reserved");
  CHECK_EQUAL(mapped, 0);
  CHECK_EQUAL(mapping->address() % huge, 0u);
}

TEST(mapping_advise) {
  std::shared_ptr<Mapping> mapping;
  CHECK_EQUAL(Mapping::Create(-1, 0, 4 * kPage, 0, kReadWrite, &mapping), 0);
  mapping->data()[kPage] = 9;
  CHECK_EQUAL(mapping->Advise(kPage, kPage, MADV_DONTNEED), 0);
  CHECK_EQUAL(mapping->data()[kPage], 0);
  CHECK_EQUAL(mapping->Advise(0, 5 * kPage, MADV_DONTNEED), -EINVAL);
  CHECK_EQUAL(mapping->Advise(5 * kPage, 0, MADV_DONTNEED), -EINVAL);
  CHECK_EQUAL(mapping->Advise(kPage, ~uint64_t{0}, MADV_DONTNEED), -EINVAL);
}

TEST(mappings_do_not_leak) {
  const int fds = test::OpenFds();
  const int64_t live = Mapping::Live();
  for (int i = 0; i < 1000; i++) {
    UniqueFd fd;
    std::shared_ptr<Mapping> mapping;
    if (CreateMemfd("m", 64 * kPage, 0, &fd) < 0 ||
        Mapping::Create(fd.get(), 0, 64 * kPage, 0, kReadWrite, &mapping) < 0) {
      CHECK(false);
      return;
    }
    mapping->data()[0] = 1;
  }
  CHECK_EQUAL(Mapping::Live(), live);
  CHECK_EQUAL(test::OpenFds(), fds);
}

}  // namespace vhost_net
