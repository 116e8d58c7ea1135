#include <algorithm>
#include <cstring>
#include <iterator>

#include "binding/async_call.h"
#include "core/dirty_log.h"
#include "core/page_io.h"
#include "core/write_witness.h"

namespace vhost_net::binding {
namespace {

/// A result and what came with it.
template <typename T>
struct Answer {
  Result result = 0;
  std::vector<T> items;
};

/// Keeps a typed array alive until an asynchronous call has answered. Its memory is looked up again only then: it may
/// have been detached in the meantime, and the pool thread never touches it.
class KeptWords {
 public:
  KeptWords(napi_env env, napi_value array) { napi_create_reference(env, array, 1, &reference_); }

  View<uint64_t> Take(napi_env env) {
    View<uint64_t> view;
    napi_typedarray_type type;
    void* data = nullptr;
    if (napi_get_reference_value(env, reference_, &view.value) != napi_ok || view.value == nullptr ||
        napi_get_typedarray_info(env, view.value, &type, &view.length, &data, nullptr, nullptr) != napi_ok) {
      view.length = 0;
    }
    view.data = static_cast<uint64_t*>(data);
    napi_delete_reference(env, reference_);
    return view;
  }

 private:
  napi_ref reference_ = nullptr;
};

napi_value DirtyLogTake(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* log = args.Handle<MappingHandle>();
  const auto target = args.Words("target");
  if (args.failed()) return nullptr;
  if (log->mapping == nullptr) return ToNumber(env, -EINVAL);
  const size_t words = std::min<size_t>(log->mapping->length() / 8, target.length);
  auto* bits = reinterpret_cast<uint64_t*>(log->mapping->data());
  return ToNumber(env, static_cast<int64_t>(TakeDirtyLog(bits, target.data, words)));
}

napi_value BitmapCount(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const auto bitmap = args.Words("bitmap");
  if (args.failed()) return nullptr;
  return ToNumber(env, static_cast<int64_t>(CountBits(bitmap.data, bitmap.length)));
}

napi_value BitmapIndexes(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const auto bitmap = args.Words("bitmap");
  const uint64_t from = args.Size("from");
  const auto out = args.Indexes("out");
  if (args.failed()) return nullptr;
  return ToNumber(env, static_cast<int64_t>(FindBits(bitmap.data, bitmap.length, from, out.data, out.length)));
}

napi_value RangeIsZero(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const auto memory = args.Bytes("memory");
  if (args.failed()) return nullptr;
  return ToNumber(env, IsZero(memory.data, memory.length) ? 1 : 0);
}

napi_value PageHashesOf(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const auto memory = args.Bytes("memory");
  const auto out = args.Words("out");
  const uint64_t first = args.Size("first");
  if (args.failed()) return nullptr;
  const size_t pages = memory.length / kPageSize;
  if (memory.length % kPageSize != 0 || first > out.length || pages > out.length - first) return ToNumber(env, -EINVAL);
  for (size_t page = 0; page < pages; page++) out.data[first + page] = HashPage(memory.data + page * kPageSize);
  return ToNumber(env, 0);
}

napi_value PageHashes(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const uint64_t offset = args.Size("offset");
  const uint64_t length = args.Size("length");
  const auto out = args.Words("out");
  if (!args.failed() && out.length < length / kPageSize) args.RangeError("out", "one word a page");
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return Resolved(env, -EBADF);
  return RunAsync(
      env, "pageHashes",
      [file = handle->file, offset, length]() {
        Answer<uint64_t> answer;
        answer.items.resize(length / kPageSize);
        answer.result = HashPages(file->fd.get(), offset, length, answer.items.data());
        return answer;
      },
      [kept = KeptWords(env, out.value)](napi_env done_env, Answer<uint64_t>& answer) mutable {
        const auto target = kept.Take(done_env);
        const size_t words = std::min(target.length, answer.items.size());
        if (answer.result >= 0 && words > 0) memcpy(target.data, answer.items.data(), words * sizeof(uint64_t));
        return ToNumber(done_env, answer.result);
      });
}

napi_value WriteWitnessTake(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<MappingHandle>();
  const auto target = args.Words("target");
  const uint64_t first_page = args.Size("firstPage");
  if (args.failed()) return nullptr;
  if (handle->mapping == nullptr) return Resolved(env, -EINVAL);
  return RunAsync(
      env, "PAGEMAP_SCAN",
      [mapping = handle->mapping]() {
        Answer<FileRange> answer;
        answer.result = TakeWritten(*mapping, &answer.items);
        return answer;
      },
      [kept = KeptWords(env, target.value), first_page](napi_env done_env, Answer<FileRange>& answer) mutable {
        const auto bits = kept.Take(done_env);
        uint64_t fresh = 0;
        for (const FileRange& range : answer.items) {
          fresh += SetBits(bits.data, bits.length, first_page + range.offset / kPageSize, range.length / kPageSize);
        }
        return ToNumber(done_env, answer.result < 0 ? answer.result : static_cast<int64_t>(fresh));
      });
}

constexpr Entry kEntries[] = {
    {"dirtyLogTake", DirtyLogTake},         {"bitmapCount", BitmapCount}, {"bitmapIndexes", BitmapIndexes},
    {"rangeIsZero", RangeIsZero},           {"pageHashes", PageHashes},   {"pageHashesOf", PageHashesOf},
    {"writeWitnessTake", WriteWitnessTake},
};

}  // namespace

void DefinePages(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
