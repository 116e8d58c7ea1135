#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include <cstring>
#include <iterator>

#include "binding/async_call.h"
#include "core/page_link.h"

namespace vhost_net::binding {

/// A store and whatever keeps its memory there.
struct StoreSlot {
  std::unique_ptr<PageStore> store;
  std::vector<std::shared_ptr<Mapping>> mappings;
  std::vector<std::shared_ptr<OpenFile>> files;
};

/// A page connection. `writing` and `reading` belong to the environment's own thread: one call each way at a time.
struct LinkSlot {
  LinkSlot(std::shared_ptr<OpenFile> socket, uint32_t seed, uint32_t next_sent, uint32_t next_received)
      : file(std::move(socket)), writer(seed, next_sent), reader(seed, next_received) {}

  std::shared_ptr<OpenFile> file;
  PageWriter writer;
  PageReader reader;
  bool writing = false;
  bool reading = false;
};

namespace {

/// Milliseconds that a call waits on the thread pool for a socket, before JavaScript waits for it without a thread.
constexpr int kWaitMs = 10;

struct StoreHandle {
  static constexpr napi_type_tag kTag = {0x5be2609d1c7f4a83, 0x94d07ae61f3b4c25};
  static constexpr const char* kName = "page store handle";
  /// Null once closed.
  std::shared_ptr<StoreSlot> slot;
};

struct LinkHandle {
  static constexpr napi_type_tag kTag = {0xe8c1375a40d24b9f, 0xa36f92c58e714d06};
  static constexpr const char* kName = "page link handle";
  /// Null once closed.
  std::shared_ptr<LinkSlot> slot;
};

/// What a link's call answers: a status, what it moved, and what is wrong.
struct LinkAnswer {
  Result status = 0;
  LinkCounts counts;
  PageViolation violation;
  uint32_t sequence = 0;
};

napi_value ToList(napi_env env, std::initializer_list<uint64_t> values) {
  napi_value list = nullptr;
  if (napi_create_array_with_length(env, values.size(), &list) != napi_ok) return nullptr;
  uint32_t at = 0;
  for (uint64_t value : values) napi_set_element(env, list, at++, ToNumber(env, static_cast<int64_t>(value)));
  return list;
}

/// Files of hugetlbfs cannot be written but through a mapping.
bool Writable(int fd) {
  struct statfs file_system;
  return fstatfs(fd, &file_system) == 0 && file_system.f_type != HUGETLBFS_MAGIC;
}

/// The region's part of the list; false when it is no region of that mapping.
bool ToRegion(const uint64_t* numbers, const Mapping& mapping, int fd, PageRegion* region) {
  const uint64_t gpa = numbers[0], size = numbers[1];
  if (gpa % kPageSize != 0 || size % kPageSize != 0 || size > mapping.length()) return false;
  if (mapping.prot() != (PROT_READ | PROT_WRITE)) return false;
  *region = {gpa / kPageSize, size / kPageSize, mapping.data(), Writable(fd) ? fd : -1, 0};
  return true;
}

napi_value PageStoreCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const auto numbers = args.U64List("regions");
  auto slot = std::make_shared<StoreSlot>();
  slot->mappings = args.Mappings("mappings");
  slot->files = args.Files("fds");
  const size_t count = slot->mappings.size();
  if (!args.failed() && (count == 0 || numbers.size() != count * 2 || slot->files.size() != count)) {
    args.RangeError("regions", "two numbers, a mapping and a descriptor for each region");
  }
  if (args.failed()) return nullptr;
  std::vector<PageRegion> regions(count);
  for (size_t i = 0; i < count; i++) {
    if (slot->mappings[i] == nullptr || slot->files[i] == nullptr) return ToNumber(env, -EBADF);
    if (!ToRegion(&numbers[i * 2], *slot->mappings[i], slot->files[i]->fd.get(), &regions[i])) {
      return ToNumber(env, -EINVAL);
    }
  }
  const Result created = PageStore::Create(std::move(regions), &slot->store);
  if (created < 0) return ToNumber(env, created);
  auto handle = std::make_unique<StoreHandle>();
  handle->slot = std::move(slot);
  return MakeHandle(env, std::move(handle));
}

napi_value PageStoreKeep(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<StoreHandle>();
  auto* before = args.Handle<StoreHandle>();
  if (args.failed()) return nullptr;
  if (handle->slot == nullptr || before->slot == nullptr) return ToNumber(env, -EBADF);
  handle->slot->store->Keep(*before->slot->store);
  return ToNumber(env, 0);
}

napi_value PageStoreHashes(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<StoreHandle>();
  const uint64_t first = args.Uint32("first");
  const auto out = args.Words("out");
  if (args.failed()) return nullptr;
  if (handle->slot == nullptr) return ToNumber(env, -EBADF);
  const auto& store = *handle->slot->store;
  if (first > store.pages() || out.length > store.pages() - first) return ToNumber(env, -EINVAL);
  store.Hashes(first, out.length, out.data);
  return ToNumber(env, 0);
}

napi_value PageStoreClose(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<StoreHandle>();
  if (args.failed()) return nullptr;
  handle->slot.reset();
  return ToNumber(env, 0);
}

std::vector<PageRun> ToRuns(const View<uint32_t>& pairs) {
  std::vector<PageRun> runs(pairs.length / 2);
  if (!runs.empty()) memcpy(runs.data(), pairs.data, runs.size() * sizeof(PageRun));
  return runs;
}

napi_value PagesPack(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<StoreHandle>();
  const auto pairs = args.Indexes("runs");
  const uint32_t round = args.Uint32("round");
  const auto target = args.Bytes("target");
  if (args.failed()) return nullptr;
  if (handle->slot == nullptr) return ToNumber(env, -EBADF);
  if (target.length < kMaxPagesPayload) return ToNumber(env, -ENOSPC);
  const std::vector<PageRun> runs = ToRuns(pairs);
  RunCursor cursor = {runs.data(), runs.size()};
  // The head's length is known last: it is put right before the data, so the payload begins where it happens to.
  uint8_t head[kMaxHead];
  uint8_t* data = target.data + kMaxHead;
  const PackedPages packed = PackPages(*handle->slot->store, &cursor, round, kMaxDataPages, head, data);
  while (!cursor.end() && cursor.done == cursor.runs[cursor.at].pages) {
    cursor.at++;
    cursor.done = 0;
  }
  if (!cursor.end()) return ToNumber(env, -E2BIG);
  const size_t begin = kMaxHead - packed.head;
  memcpy(target.data + begin, head, packed.head);
  return ToList(env, {begin, packed.head, packed.data, packed.counts.pages, packed.counts.zero_pages});
}

napi_value PagesUnpack(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<StoreHandle>();
  const auto payload = args.Bytes("payload");
  const auto decoded = args.BytesOrNull("decoded");
  const uint32_t round = args.Uint32("round");
  if (args.failed()) return nullptr;
  if (handle->slot == nullptr) return ToNumber(env, -EBADF);
  PageCounts counts;
  PagesShape shape;
  PageViolation wrong = ReadPagesShape(payload.data, payload.length, &shape);
  if (wrong.code == PageViolation::kNone) {
    const bool plain = shape.encoding == kEncodingPlain;
    if (plain != (decoded.value == nullptr)) return ToNumber(env, -EINVAL);
    const size_t bytes = shape.data_pages * kPageSize;
    if (!plain && decoded.length != bytes) {
      wrong = {PageViolation::kStored, 8, decoded.length, bytes};
    } else {
      const uint8_t* data = plain ? payload.data + shape.head : decoded.data;
      const Result unpacked =
          UnpackPages(handle->slot->store.get(), payload.data, shape, data, round, &counts, &wrong);
      if (unpacked < 0) return ToNumber(env, unpacked);
    }
  }
  if (wrong.code != PageViolation::kNone) return ToList(env, {wrong.code, wrong.offset, wrong.found, wrong.wanted});
  return ToList(env, {wrong.code, counts.pages, counts.zero_pages, 0});
}

napi_value PageLinkCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* file = args.Handle<FdHandle>();
  const uint32_t seed = args.Uint32("seed");
  const uint32_t next_sent = args.Uint32("nextSent");
  const uint32_t next_received = args.Uint32("nextReceived");
  if (args.failed()) return nullptr;
  if (file->file == nullptr) return ToNumber(env, -EBADF);
  WidenLocalSocket(file->file->fd.get());
  auto handle = std::make_unique<LinkHandle>();
  handle->slot = std::make_shared<LinkSlot>(file->file, seed, next_sent, next_received);
  return MakeHandle(env, std::move(handle));
}

napi_value PageLinkClose(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<LinkHandle>();
  if (args.failed()) return nullptr;
  handle->slot.reset();
  return ToNumber(env, 0);
}

napi_value ToAnswer(napi_env env, const LinkAnswer& answer) {
  if (answer.status < 0) return ToNumber(env, answer.status);
  const LinkCounts& moved = answer.counts;
  const PageViolation& wrong = answer.violation;
  return ToList(env, {static_cast<uint64_t>(answer.status), moved.pages.pages, moved.pages.zero_pages, moved.bytes,
                      wrong.code, wrong.offset, wrong.found, wrong.wanted, answer.sequence});
}

napi_value PageLinkSend(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* link = args.Handle<LinkHandle>();
  auto* store = args.Handle<StoreHandle>();
  const auto pairs = args.Indexes("runs");
  const uint32_t round = args.Uint32("round");
  const uint64_t budget = args.Size("budget");
  if (args.failed()) return nullptr;
  if (link->slot == nullptr || store->slot == nullptr) return Resolved(env, -EBADF);
  if (link->slot->writing) return Resolved(env, -EBUSY);
  if (pairs.length > 0) link->slot->writer.Queue(ToRuns(pairs), round);
  link->slot->writing = true;
  return RunAsync(
      env, "pageLinkSend",
      [slot = link->slot, memory = store->slot, budget]() {
        LinkAnswer answer;
        answer.status = slot->writer.Send(slot->file->fd.get(), *memory->store, {budget, kWaitMs}, &answer.counts);
        return answer;
      },
      [slot = link->slot](napi_env done_env, LinkAnswer& answer) {
        slot->writing = false;
        return ToAnswer(done_env, answer);
      });
}

napi_value PageLinkFrame(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* link = args.Handle<LinkHandle>();
  const uint32_t type = args.Uint32("type");
  const auto payload = args.Bytes("payload");
  if (!args.failed() && (type > UINT16_MAX || payload.length > kMaxOtherPayload)) {
    args.RangeError("payload", "up to 65536 bytes, of a type up to 65535");
  }
  if (args.failed()) return nullptr;
  if (link->slot == nullptr) return ToNumber(env, -EBADF);
  if (link->slot->writing) return ToNumber(env, -EBUSY);
  return ToNumber(env, link->slot->writer.QueueFrame(static_cast<uint16_t>(type), payload.data, payload.length));
}

napi_value PageLinkReceive(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* link = args.Handle<LinkHandle>();
  auto* store = args.Handle<StoreHandle>();
  const uint32_t round = args.Uint32("round");
  const uint64_t budget = args.Size("budget");
  if (args.failed()) return nullptr;
  if (link->slot == nullptr || store->slot == nullptr) return Resolved(env, -EBADF);
  if (link->slot->reading) return Resolved(env, -EBUSY);
  link->slot->reading = true;
  return RunAsync(
      env, "pageLinkReceive",
      [slot = link->slot, memory = store->slot, round, budget]() {
        LinkAnswer answer;
        answer.status = slot->reader.Receive(slot->file->fd.get(), memory->store.get(), round, {budget, kWaitMs},
                                             &answer.counts);
        if (answer.status == static_cast<Result>(LinkStatus::kViolation)) answer.violation = slot->reader.violation();
        answer.sequence = slot->reader.sequence();
        return answer;
      },
      [slot = link->slot](napi_env done_env, LinkAnswer& answer) {
        slot->reading = false;
        return ToAnswer(done_env, answer);
      });
}

napi_value PageLinkTake(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* link = args.Handle<LinkHandle>();
  if (args.failed()) return nullptr;
  if (link->slot == nullptr) return ToNumber(env, -EBADF);
  if (link->slot->reading) return ToNumber(env, -EBUSY);
  const std::vector<uint8_t> frame = link->slot->reader.TakeOther();
  void* data = nullptr;
  napi_value buffer = nullptr, bytes = nullptr;
  if (napi_create_arraybuffer(env, frame.size(), &data, &buffer) != napi_ok) return nullptr;
  if (!frame.empty()) memcpy(data, frame.data(), frame.size());
  if (napi_create_typedarray(env, napi_uint8_array, frame.size(), buffer, 0, &bytes) != napi_ok) return nullptr;
  return bytes;
}

constexpr Entry kEntries[] = {
    {"pageStoreCreate", PageStoreCreate}, {"pageStoreKeep", PageStoreKeep}, {"pageStoreHashes", PageStoreHashes},
    {"pageStoreClose", PageStoreClose},
    {"pagesPack", PagesPack},             {"pagesUnpack", PagesUnpack},         {"pageLinkCreate", PageLinkCreate},
    {"pageLinkClose", PageLinkClose},     {"pageLinkSend", PageLinkSend},       {"pageLinkFrame", PageLinkFrame},
    {"pageLinkReceive", PageLinkReceive}, {"pageLinkTake", PageLinkTake},
};

}  // namespace

void DefinePageStream(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
