#include "core/page_stream.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "core/crc32.h"
#include "core/mapping.h"
#include "core/page_link.h"
#include "test/check.h"

namespace vhost_net {
namespace {

constexpr int kReadWrite = 3;
constexpr uint32_t kSeed = 99;

/// Two regions that touch, of 300 and 200 pages, and one behind a gap.
struct Guest {
  static constexpr uint64_t kPages[3] = {300, 200, 100};
  static constexpr uint64_t kFirst[3] = {16, 316, 1000};
  UniqueFd fds[3];
  std::shared_ptr<Mapping> mappings[3];
  std::unique_ptr<PageStore> store;

  explicit Guest(bool by_file = true) {
    std::vector<PageRegion> regions;
    for (int i = 0; i < 3; i++) {
      CHECK_EQUAL(CreateMemfd("guest", kPages[i] * kPageSize, 0, &fds[i]), 0);
      CHECK_EQUAL(Mapping::Create(fds[i].get(), 0, kPages[i] * kPageSize, 0, kReadWrite, &mappings[i]), 0);
      regions.push_back({kFirst[i], kPages[i], mappings[i]->data(), by_file ? fds[i].get() : -1, 0});
    }
    CHECK_EQUAL(PageStore::Create(regions, &store), 0);
  }
  void Fill(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 3; i++) {
      for (uint64_t page = 0; page < kPages[i]; page++) {
        if (random() % 3 == 0) continue;
        memset(mappings[i]->data() + page * kPageSize + random() % kPageSize, static_cast<int>(random()), 1);
      }
    }
  }
  bool SameAs(const Guest& other) const {
    for (int i = 0; i < 3; i++) {
      if (memcmp(mappings[i]->data(), other.mappings[i]->data(), kPages[i] * kPageSize) != 0) return false;
    }
    return true;
  }
};

/// Everything in one frame of one data page.
std::vector<uint8_t> OnePage() {
  Guest guest;
  guest.mappings[0]->data()[5 * kPageSize + 77] = 8;
  const PageRun run = {20, 2};
  RunCursor cursor = {&run, 1};
  std::vector<uint8_t> frame(kMaxHead), data(kPageSize);
  const PackedPages packed = PackPages(*guest.store, &cursor, 0, 1, frame.data(), data.data());
  frame.resize(packed.head);
  frame.insert(frame.end(), data.begin(), data.begin() + static_cast<long>(packed.data));
  return frame;
}

}  // namespace

TEST(crc32_is_that_of_zlib) {
  const char* text = "123456789";
  CHECK_EQUAL(Crc32(reinterpret_cast<const uint8_t*>(text), 9, 0), 0xcbf43926u);
  const uint32_t begun = Crc32(reinterpret_cast<const uint8_t*>(text), 2, 0);
  CHECK_EQUAL(Crc32(reinterpret_cast<const uint8_t*>(text) + 2, 7, begun), 0xcbf43926u);
}

TEST(page_store_refuses) {
  std::unique_ptr<PageStore> store;
  uint8_t byte;
  CHECK_EQUAL(PageStore::Create({}, &store), -EINVAL);
  CHECK_EQUAL(PageStore::Create({{0, 0, &byte, -1, 0}}, &store), -EINVAL);
  CHECK_EQUAL(PageStore::Create({{4, 4, &byte, -1, 0}, {0, 5, &byte, -1, 0}}, &store), -EINVAL);
  CHECK_EQUAL(PageStore::Create({{uint64_t{1} << 32, 1, &byte, -1, 0}}, &store), -EINVAL);
  CHECK_EQUAL(PageStore::Create({{1, ~uint64_t{0}, &byte, -1, 0}}, &store), -EINVAL);
  Guest guest;
  CHECK(guest.store->Find(15, 1) == nullptr && guest.store->Find(16, 300) != nullptr);
  CHECK(guest.store->Find(16, 301) == nullptr && guest.store->Find(~uint64_t{0}, 2) == nullptr);
}

TEST(every_flipped_bit_of_a_payload_is_found) {
  std::vector<uint8_t> frame = OnePage();
  PagesShape whole;
  CHECK_EQUAL(ReadPagesShape(frame.data(), frame.size(), &whole).code, PageViolation::kNone);
  const uint32_t checksum = Crc32(frame.data(), whole.head, kSeed);
  Guest target;
  for (size_t bit = 0; bit < frame.size() * 8; bit++) {
    frame[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    PagesShape shape;
    PageViolation wrong = ReadPagesShape(frame.data(), frame.size(), &shape);
    bool found = wrong.code != PageViolation::kNone || Crc32(frame.data(), shape.head, kSeed) != checksum;
    if (!found) {
      PageCounts counts;
      CHECK_EQUAL(UnpackPages(target.store.get(), frame.data(), shape, frame.data() + shape.head, 0, &counts, &wrong), 0);
      found = wrong.code == PageViolation::kHash;
    }
    if (!CHECK(found)) return;
    frame[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
  std::vector<FileRange> ranges;
  CHECK_EQUAL(FindDataRanges(target.fds[0].get(), 0, 300 * kPageSize, &ranges), 0);
  CHECK_EQUAL(ranges.size(), 0u);
  for (size_t length = 0; length < frame.size(); length++) {
    PagesShape shape;
    if (!CHECK(ReadPagesShape(frame.data(), length, &shape).code != PageViolation::kNone)) return;
  }
}

TEST(pages_over_a_socket) {
  for (const bool by_file : {true, false}) {
    Guest source, target(by_file);
    int ends[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    PageWriter writer(kSeed, 1);
    PageReader reader(kSeed, 1);
    for (uint32_t round = 0; round < 3; round++) {
      source.Fill(round);
      std::thread sending([&] {
        // Page 15, the gap and what lies behind the last region are no memory.
        writer.Queue({{15, 400}, {415, 700}}, round);
        LinkCounts sent;
        Result status;
        do status = writer.Send(ends[0], *source.store, {300000, 50}, &sent);
        while (status == 1 || status == 2);
        CHECK_EQUAL(status, 0);
        const uint8_t byte = '!';
        CHECK_EQUAL(writer.QueueFrame(23, &byte, 1), 0);
        CHECK_EQUAL(writer.Send(ends[0], *source.store, {1, 1000}, &sent), 0);
        CHECK_EQUAL(sent.pages.pages, 600u);
      });
      LinkCounts came;
      Result status;
      do status = reader.Receive(ends[1], target.store.get(), round, {200000, 50}, &came);
      while (status == 1 || status == 2);
      if (status != static_cast<Result>(LinkStatus::kOther)) shutdown(ends[1], SHUT_RDWR);
      sending.join();
      CHECK_EQUAL(reader.violation().code, PageViolation::kNone);
      CHECK_EQUAL(status, static_cast<Result>(LinkStatus::kOther));
      CHECK_EQUAL(reader.TakeOther().size(), kFrameHeader + 1);
      CHECK_EQUAL(came.pages.pages, 600u);
      CHECK(source.SameAs(target));
    }
    close(ends[0]);
    LinkCounts came;
    CHECK_EQUAL(reader.Receive(ends[1], target.store.get(), 3, {1, 50}, &came), static_cast<Result>(LinkStatus::kEnd));
    close(ends[1]);
  }
}

TEST(a_socket_that_is_full_or_gone) {
  Guest source;
  source.Fill(1);
  memset(source.mappings[0]->data(), 1, 300 * kPageSize);
  int ends[2];
  CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  int before = 0, after = 0;
  socklen_t length = sizeof before;
  getsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &before, &length);
  WidenLocalSocket(ends[0]);
  getsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &after, &length);
  CHECK(after >= before);
  setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &before, sizeof before);
  PageWriter writer(kSeed, 1);
  LinkCounts sent;
  writer.Queue({{16, 300}}, 0);
  CHECK_EQUAL(writer.Send(ends[0], *source.store, {1 << 30, 1}, &sent), static_cast<Result>(LinkStatus::kBlocked));
  CHECK_EQUAL(writer.QueueFrame(23, nullptr, 0), -EBUSY);
  close(ends[1]);
  CHECK_EQUAL(writer.Send(ends[0], *source.store, {1 << 30, 1}, &sent), -EPIPE);
  close(ends[0]);
}

}  // namespace vhost_net
