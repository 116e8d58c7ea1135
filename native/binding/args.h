#ifndef VHOST_NET_BINDING_ARGS_H_
#define VHOST_NET_BINDING_ARGS_H_

#include <napi.h>

#include <optional>
#include <string>
#include <vector>

#include "binding/handles.h"

namespace vhost_net::binding {

/// A view of a typed array, valid until JavaScript runs again.
template <typename T>
struct View {
  T* data = nullptr;
  size_t length = 0;
  napi_value value = nullptr;
};

/// Takes a call's arguments in order. The first that is wrong throws (TypeError for a wrong type, RangeError for a
/// number outside of its range) and turns failed() on; what is taken after that is empty. Nothing is done before
/// failed() was asked.
class Args {
 public:
  static constexpr size_t kMost = 8;

  Args(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = kMost;
    if (napi_get_cb_info(env, info, &count, values_, nullptr, nullptr) != napi_ok) failed_ = true;
  }

  bool failed() const { return failed_; }
  napi_env env() const { return env_; }

  template <typename T>
  T* Handle() {
    napi_value value = Next();
    T* handle = failed_ ? nullptr : GetHandle<T>(env_, value);
    if (handle == nullptr) TypeError("argument", T::kName);
    return handle;
  }
  template <typename T>
  T* HandleOrNull() {
    return NextIsNull() ? nullptr : Handle<T>();
  }

  int32_t Int32(const char* name);
  uint32_t Uint32(const char* name);
  /// 0 to 2^53 - 1.
  uint64_t Size(const char* name);
  /// A safe integer or a BigInt of 64 bits.
  uint64_t U64(const char* name);
  bool Boolean(const char* name);
  std::string String(const char* name);
  std::optional<std::string> StringOrNull(const char* name);
  View<uint8_t> Bytes(const char* name) { return TypedArray<uint8_t>(name, napi_uint8_array, "Uint8Array"); }
  View<uint8_t> BytesOrNull(const char* name) { return NextIsNull() ? View<uint8_t>() : Bytes(name); }
  View<uint64_t> Words(const char* name) { return TypedArray<uint64_t>(name, napi_biguint64_array, "BigUint64Array"); }
  View<uint32_t> Indexes(const char* name) { return TypedArray<uint32_t>(name, napi_uint32_array, "Uint32Array"); }
  View<int32_t> Lengths(const char* name) { return TypedArray<int32_t>(name, napi_int32_array, "Int32Array"); }
  napi_value Function(const char* name);
  std::vector<uint64_t> U64List(const char* name);
  /// A closed mapping is a null entry.
  std::vector<std::shared_ptr<Mapping>> Mappings(const char* name);
  /// A closed descriptor is a null entry.
  std::vector<std::shared_ptr<OpenFile>> Files(const char* name);

  /// For rules that span several arguments.
  void RangeError(const char* name, const char* rule);

 private:
  napi_value Next() { return next_ < kMost ? values_[next_++] : values_[kMost - 1]; }
  bool NextIsNull();
  void TypeError(const char* name, const char* wanted);
  double Number(napi_value value, const char* name, double least, double most);
  uint64_t ToU64(napi_value value, const char* name);
  uint32_t ListLength(napi_value list, const char* name);
  /// `pick` of every handle in a list.
  template <typename T, typename Item>
  std::vector<Item> Handles(const char* name, const char* wanted, Item T::*pick);

  template <typename T>
  View<T> TypedArray(const char* name, napi_typedarray_type wanted, const char* type_name) {
    View<T> view;
    napi_value value = Next();
    if (failed_) return view;
    napi_typedarray_type type;
    void* data = nullptr;
    if (napi_get_typedarray_info(env_, value, &type, &view.length, &data, nullptr, nullptr) != napi_ok ||
        type != wanted) {
      TypeError(name, type_name);
      return {};
    }
    view.data = static_cast<T*>(data);
    view.value = value;
    return view;
  }

  napi_env env_;
  napi_value values_[kMost] = {};
  size_t next_ = 0;
  bool failed_ = false;
};

napi_value ToNumber(napi_env env, int64_t value);
napi_value ToBigInt(napi_env env, uint64_t value);
napi_value Undefined(napi_env env);

struct Entry {
  const char* name;
  napi_callback callback;
};
/// Adds functions to the exports.
void Define(napi_env env, napi_value exports, const Entry* entries, size_t count);

void DefineDescriptors(napi_env env, napi_value exports);
void DefineMemory(napi_env env, napi_value exports);
void DefinePages(napi_env env, napi_value exports);
void DefinePageStream(napi_env env, napi_value exports);
void DefinePoll(napi_env env, napi_value exports);
void DefineSocket(napi_env env, napi_value exports);
void DefineTap(napi_env env, napi_value exports);
void DefineTime(napi_env env, napi_value exports);
void DefineVhost(napi_env env, napi_value exports);
void DefineVring(napi_env env, napi_value exports);

}  // namespace vhost_net::binding

#endif
