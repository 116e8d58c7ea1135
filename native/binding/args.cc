#include "binding/args.h"

#include <cmath>

namespace vhost_net::binding {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;

}  // namespace

void Args::TypeError(const char* name, const char* wanted) {
  if (failed_) return;
  failed_ = true;
  const std::string message = std::string(name) + " must be a " + wanted;
  napi_throw_type_error(env_, "ERR_INVALID_ARG_TYPE", message.c_str());
}

void Args::RangeError(const char* name, const char* rule) {
  if (failed_) return;
  failed_ = true;
  const std::string message = std::string(name) + " must be " + rule;
  napi_throw_range_error(env_, "ERR_OUT_OF_RANGE", message.c_str());
}

bool Args::NextIsNull() {
  napi_valuetype type = napi_undefined;
  if (failed_ || next_ >= kMost || napi_typeof(env_, values_[next_], &type) != napi_ok || type != napi_null)
    return false;
  next_++;
  return true;
}

double Args::Number(napi_value value, const char* name, double least, double most) {
  double number = 0;
  if (failed_) return 0;
  if (napi_get_value_double(env_, value, &number) != napi_ok) {
    TypeError(name, "number");
    return 0;
  }
  if (!(number >= least && number <= most) || std::trunc(number) != number) {
    const std::string rule = "an integer from " + std::to_string(static_cast<int64_t>(least)) + " to " +
                             std::to_string(static_cast<int64_t>(most));
    RangeError(name, rule.c_str());
    return 0;
  }
  return number;
}

int32_t Args::Int32(const char* name) { return static_cast<int32_t>(Number(Next(), name, INT32_MIN, INT32_MAX)); }
uint32_t Args::Uint32(const char* name) { return static_cast<uint32_t>(Number(Next(), name, 0, UINT32_MAX)); }
uint64_t Args::Size(const char* name) { return static_cast<uint64_t>(Number(Next(), name, 0, kMaxSafeInteger)); }

uint64_t Args::ToU64(napi_value value, const char* name) {
  if (failed_) return 0;
  napi_valuetype type = napi_undefined;
  if (napi_typeof(env_, value, &type) != napi_ok || (type != napi_bigint && type != napi_number)) {
    TypeError(name, "number or bigint");
    return 0;
  }
  if (type == napi_number) return static_cast<uint64_t>(Number(value, name, 0, kMaxSafeInteger));
  uint64_t word = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env_, value, &word, &lossless) != napi_ok || !lossless) {
    RangeError(name, "a bigint from 0 to 2^64 - 1");
    return 0;
  }
  return word;
}

uint64_t Args::U64(const char* name) { return ToU64(Next(), name); }

bool Args::Boolean(const char* name) {
  napi_value value = Next();
  bool boolean = false;
  if (!failed_ && napi_get_value_bool(env_, value, &boolean) != napi_ok) TypeError(name, "boolean");
  return boolean;
}

std::string Args::String(const char* name) {
  napi_value value = Next();
  size_t length = 0;
  if (failed_) return {};
  if (napi_get_value_string_utf8(env_, value, nullptr, 0, &length) != napi_ok) {
    TypeError(name, "string");
    return {};
  }
  std::string text(length, '\0');
  napi_get_value_string_utf8(env_, value, text.data(), length + 1, &length);
  if (text.find('\0') != std::string::npos) {
    RangeError(name, "without zero bytes");
    return {};
  }
  return text;
}

std::optional<std::string> Args::StringOrNull(const char* name) {
  if (NextIsNull()) return std::nullopt;
  return String(name);
}

napi_value Args::Function(const char* name) {
  napi_value value = Next();
  napi_valuetype type = napi_undefined;
  if (!failed_ && (napi_typeof(env_, value, &type) != napi_ok || type != napi_function)) TypeError(name, "function");
  return value;
}

uint32_t Args::ListLength(napi_value list, const char* name) {
  bool is_array = false;
  uint32_t length = 0;
  if (failed_) return 0;
  if (napi_is_array(env_, list, &is_array) != napi_ok || !is_array ||
      napi_get_array_length(env_, list, &length) != napi_ok) {
    TypeError(name, "array");
    return 0;
  }
  return length;
}

std::vector<uint64_t> Args::U64List(const char* name) {
  napi_value list = Next();
  const uint32_t length = ListLength(list, name);
  // Not reserved: a sparse array may claim any length.
  std::vector<uint64_t> words;
  for (uint32_t i = 0; i < length && !failed_; i++) {
    napi_value element;
    if (napi_get_element(env_, list, i, &element) != napi_ok) {
      failed_ = true;
      return {};
    }
    words.push_back(ToU64(element, name));
  }
  return words;
}

template <typename T, typename Take>
auto Args::HandleList(const char* name, const char* wanted, Take take) {
  napi_value list = Next();
  const uint32_t length = ListLength(list, name);
  std::vector<decltype(take(std::declval<T*>()))> taken;
  for (uint32_t i = 0; i < length && !failed_; i++) {
    napi_value element;
    if (napi_get_element(env_, list, i, &element) != napi_ok) {
      failed_ = true;
      return decltype(taken)();
    }
    auto* handle = GetHandle<T>(env_, element);
    if (handle == nullptr) {
      TypeError(name, wanted);
      return decltype(taken)();
    }
    taken.push_back(take(handle));
  }
  return taken;
}

std::vector<std::shared_ptr<Mapping>> Args::Mappings(const char* name) {
  return HandleList<MappingHandle>(name, "array of mapping handles",
                                   [](MappingHandle* handle) { return handle->mapping; });
}

std::vector<std::shared_ptr<OpenFile>> Args::Files(const char* name) {
  return HandleList<FdHandle>(name, "array of descriptor handles", [](FdHandle* handle) { return handle->file; });
}

napi_value ToNumber(napi_env env, int64_t value) {
  napi_value number = nullptr;
  napi_create_int64(env, value, &number);
  return number;
}

napi_value ToBigInt(napi_env env, uint64_t value) {
  napi_value bigint = nullptr;
  napi_create_bigint_uint64(env, value, &bigint);
  return bigint;
}

napi_value Undefined(napi_env env) {
  napi_value undefined = nullptr;
  napi_get_undefined(env, &undefined);
  return undefined;
}

void Define(napi_env env, napi_value exports, const Entry* entries, size_t count) {
  std::vector<napi_property_descriptor> properties;
  for (size_t i = 0; i < count; i++) {
    napi_property_descriptor property = {};
    property.utf8name = entries[i].name;
    property.method = entries[i].callback;
    property.attributes = static_cast<napi_property_attributes>(napi_default_method | napi_enumerable);
    properties.push_back(property);
  }
  napi_define_properties(env, exports, properties.size(), properties.data());
}

}  // namespace vhost_net::binding
