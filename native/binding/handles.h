#ifndef VHOST_NET_BINDING_HANDLES_H_
#define VHOST_NET_BINDING_HANDLES_H_

#include <napi.h>

#include <memory>
#include <vector>

#include "core/mapping.h"
#include "core/tap.h"
#include "core/unique_fd.h"
#include "core/vhost_net.h"

/// What JavaScript holds: externals with a type tag each, so that one kind cannot be taken for another. A handle is a
/// shared reference; calls that run on the thread pool hold one more, which makes closing a handle in between safe.

namespace vhost_net::binding {

struct OpenFile {
  explicit OpenFile(UniqueFd owned) : fd(std::move(owned)), filter(std::make_shared<TapFilter>()) {}

  UniqueFd fd;
  /// Shared between the duplicates of a descriptor: a tap has one filter.
  std::shared_ptr<TapFilter> filter;
};

struct FdHandle {
  static constexpr napi_type_tag kTag = {0x7d4f1c0e52a94b36, 0x9a0be1d35c7f4821};
  static constexpr const char* kName = "descriptor handle";
  /// Null once closed.
  std::shared_ptr<OpenFile> file;
};

struct MappingHandle {
  static constexpr napi_type_tag kTag = {0x31b86a9de7024cf5, 0xb6e25d8803f94a17};
  static constexpr const char* kName = "mapping handle";
  /// Null once closed.
  std::shared_ptr<Mapping> mapping;
  /// Weak references to the ArrayBuffers made of it.
  std::vector<napi_ref> buffers;
};

/// One vhost device and the calls on it. Everything but `device` belongs to the environment's own thread.
struct VhostSlot {
  explicit VhostSlot(UniqueFd fd) : device(std::move(fd)) {}

  VhostNet device;
  uint32_t running = 0;
  enum { kOpen, kClosing, kClosed } state = kOpen;
  std::vector<napi_deferred> closing;
};

struct VhostHandle {
  static constexpr napi_type_tag kTag = {0xc45e0297bd814f6a, 0x8f71a3c62e0d4959};
  static constexpr const char* kName = "vhost handle";
  std::shared_ptr<VhostSlot> slot;
};

struct Poll;

struct PollHandle {
  static constexpr napi_type_tag kTag = {0x0f92d7b4681e4ca3, 0xae5804f7d92b4360};
  static constexpr const char* kName = "poll handle";
  /// Null once stopped.
  Poll* poll = nullptr;
};

/// What must happen to a handle in its finalizer before it is deleted.
template <typename T>
void Release(napi_env, T*) {}
void Release(napi_env env, MappingHandle* handle);
void Release(napi_env env, PollHandle* handle);

/// An external of a handle, or null with a JavaScript exception pending.
template <typename T>
napi_value MakeHandle(napi_env env, std::unique_ptr<T> handle) {
  napi_value external = nullptr;
  auto finalize = [](napi_env finalizing, void* data, void*) {
    auto* dead = static_cast<T*>(data);
    Release(finalizing, dead);
    delete dead;
  };
  if (napi_create_external(env, handle.get(), finalize, nullptr, &external) != napi_ok) return nullptr;
  handle.release();
  if (napi_type_tag_object(env, external, &T::kTag) != napi_ok) return nullptr;
  return external;
}

inline napi_value MakeFdHandle(napi_env env, UniqueFd fd) {
  auto handle = std::make_unique<FdHandle>();
  handle->file = std::make_shared<OpenFile>(std::move(fd));
  return MakeHandle(env, std::move(handle));
}

/// The handle inside of a value, null when it is something else.
template <typename T>
T* GetHandle(napi_env env, napi_value value) {
  bool matches = false;
  void* data = nullptr;
  if (napi_get_value_external(env, value, &data) != napi_ok) return nullptr;
  if (napi_check_object_type_tag(env, value, &T::kTag, &matches) != napi_ok || !matches) return nullptr;
  return static_cast<T*>(data);
}

}  // namespace vhost_net::binding

#endif
