#include <sys/mman.h>

#include <iterator>

#include "binding/async_call.h"
#include "core/page_io.h"
#include "core/write_witness.h"

namespace vhost_net::binding {
namespace {

/// What an ArrayBuffer holds of its mapping until it is finalized.
struct BufferHold {
  std::shared_ptr<Mapping> mapping;
  /// Set while the buffer is being made: told when the finalizer runs before that has answered.
  bool* finalized;
};

void FinalizeBuffer(napi_env, void*, void* hint) {
  auto* hold = static_cast<BufferHold*>(hint);
  if (hold->finalized != nullptr) *hold->finalized = true;
  delete hold;
}

napi_value MemfdCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const std::string name = args.String("name");
  const uint64_t size = args.Size("size");
  const uint64_t huge_page_size = args.Size("hugePageSize");
  if (args.failed()) return nullptr;
  UniqueFd fd;
  const Result result = CreateMemfd(name.c_str(), size, huge_page_size, &fd);
  return result < 0 ? ToNumber(env, result) : MakeFdHandle(env, std::move(fd));
}

napi_value MappingCreate(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* file = args.HandleOrNull<FdHandle>();
  const uint64_t offset = args.Size("offset");
  const uint64_t length = args.Size("length");
  const uint64_t huge_page_size = args.Size("hugePageSize");
  const int prot = args.Int32("prot");
  if (args.failed()) return nullptr;
  if (file != nullptr && file->file == nullptr) return ToNumber(env, -EBADF);
  auto handle = std::make_unique<MappingHandle>();
  const int fd = file == nullptr ? -1 : file->file->fd.get();
  const Result result = Mapping::Create(fd, offset, length, huge_page_size, prot, &handle->mapping);
  return result < 0 ? ToNumber(env, result) : MakeHandle(env, std::move(handle));
}

napi_value MappingAddress(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<MappingHandle>();
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->mapping == nullptr ? 0 : static_cast<int64_t>(handle->mapping->address()));
}

/// Forgets the buffers that the garbage collector has taken, so that a mapping asked for many buffers does not collect
/// references.
void DropDeadReferences(napi_env env, MappingHandle* handle) {
  std::vector<napi_ref> alive;
  for (napi_ref reference : handle->buffers) {
    napi_value buffer = nullptr;
    if (napi_get_reference_value(env, reference, &buffer) == napi_ok && buffer != nullptr) {
      alive.push_back(reference);
    } else {
      napi_delete_reference(env, reference);
    }
  }
  handle->buffers.swap(alive);
}

napi_value MappingBuffer(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<MappingHandle>();
  if (args.failed()) return nullptr;
  if (handle->mapping == nullptr) return ToNumber(env, -EINVAL);
  // JavaScript has no read-only ArrayBuffer: a store through it would be a SIGSEGV.
  if (handle->mapping->prot() != (PROT_READ | PROT_WRITE)) return ToNumber(env, -EACCES);
  DropDeadReferences(env, handle);

  bool finalized = false;
  auto* hold = new BufferHold{handle->mapping, &finalized};
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(env, hold->mapping->data(), hold->mapping->length(),
                                                              FinalizeBuffer, hold, &buffer);
  // A buffer that Node refuses as too large is finalized at once, later or never, depending on its version: what may
  // still come is left an empty hold.
  if (!finalized) {
    hold->finalized = nullptr;
    if (status != napi_ok) hold->mapping.reset();
  }
  if (status != napi_ok) {
    if (status == napi_no_external_buffers_allowed) {
      napi_throw_error(env, "ERR_NO_EXTERNAL_MEMORY", "this runtime does not allow external ArrayBuffers");
    }
    return nullptr;
  }
  napi_ref reference = nullptr;
  if (napi_create_reference(env, buffer, 0, &reference) != napi_ok) return nullptr;
  handle->buffers.push_back(reference);
  return buffer;
}

void DetachBuffers(napi_env env, MappingHandle* handle) {
  for (napi_ref reference : handle->buffers) {
    napi_value buffer = nullptr;
    bool detached = true;
    if (napi_get_reference_value(env, reference, &buffer) == napi_ok && buffer != nullptr &&
        napi_is_detached_arraybuffer(env, buffer, &detached) == napi_ok && !detached) {
      napi_detach_arraybuffer(env, buffer);
    }
    napi_delete_reference(env, reference);
  }
  handle->buffers.clear();
}

napi_value MappingClose(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<MappingHandle>();
  if (args.failed()) return nullptr;
  DetachBuffers(env, handle);
  handle->mapping.reset();
  return ToNumber(env, 0);
}

napi_value MappingAdvise(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<MappingHandle>();
  const uint64_t offset = args.Size("offset");
  const uint64_t length = args.Size("length");
  const int advice = args.Int32("advice");
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->mapping == nullptr ? -EINVAL : handle->mapping->Advise(offset, length, advice));
}

napi_value MappingsLive(napi_env env, napi_callback_info) { return ToNumber(env, Mapping::Live()); }

napi_value MemfdDataRanges(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<FdHandle>();
  const uint64_t from = args.Size("from");
  const uint64_t to = args.Size("to");
  if (args.failed()) return nullptr;
  if (handle->file == nullptr) return ToNumber(env, -EBADF);
  std::vector<FileRange> ranges;
  const Result result = FindDataRanges(handle->file->fd.get(), from, to, &ranges);
  if (result < 0) return ToNumber(env, result);
  napi_value list = nullptr;
  if (napi_create_array_with_length(env, ranges.size() * 2, &list) != napi_ok) return nullptr;
  uint32_t at = 0;
  for (const FileRange& range : ranges) {
    napi_set_element(env, list, at++, ToNumber(env, static_cast<int64_t>(range.offset)));
    napi_set_element(env, list, at++, ToNumber(env, static_cast<int64_t>(range.length)));
  }
  return list;
}

napi_value WriteWitnessStart(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<MappingHandle>();
  if (args.failed()) return nullptr;
  if (handle->mapping == nullptr) return ToNumber(env, -EINVAL);
  UniqueFd fd;
  const Result result = StartWriteWitness(*handle->mapping, &fd);
  return result < 0 ? ToNumber(env, result) : MakeFdHandle(env, std::move(fd));
}

constexpr Entry kEntries[] = {
    {"memfdCreate", MemfdCreate},     {"mappingCreate", MappingCreate},     {"mappingAddress", MappingAddress},
    {"mappingBuffer", MappingBuffer}, {"mappingClose", MappingClose},       {"mappingAdvise", MappingAdvise},
    {"mappingsLive", MappingsLive},   {"memfdDataRanges", MemfdDataRanges}, {"writeWitnessStart", WriteWitnessStart},
};

}  // namespace

void Release(napi_env env, MappingHandle* handle) {
  for (napi_ref reference : handle->buffers) napi_delete_reference(env, reference);
}

void DefineMemory(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
