#include <cstring>
#include <iterator>

#include "binding/vhost_call.h"

namespace vhost_net::binding {

void BeginClose(napi_env env, const std::shared_ptr<VhostSlot>& slot) {
  auto work = [slot]() -> Result {
    slot->device.Close();
    return 0;
  };
  auto done = [slot](napi_env done_env, Result& result) {
    slot->state = VhostSlot::kClosed;
    for (napi_deferred deferred : slot->closing) Settle(done_env, deferred, ToNumber(done_env, result));
    slot->closing.clear();
  };
  PoolCall<decltype(work), decltype(done)>::Queue(env, "close", std::move(work), std::move(done));
}

namespace {

napi_value MakeVhostHandle(napi_env env, UniqueFd fd) {
  auto handle = std::make_unique<VhostHandle>();
  handle->slot = std::make_shared<VhostSlot>(std::move(fd));
  return MakeHandle(env, std::move(handle));
}

struct Opened {
  Result result = 0;
  UniqueFd fd;
};

napi_value Open(napi_env env, napi_callback_info info) {
  Args args(env, info);
  std::string path = args.String("path");
  if (args.failed()) return nullptr;
  return RunAsync(
      env, "open",
      [path = std::move(path)]() {
        Opened opened;
        opened.result = OpenVhostNet(path.c_str(), &opened.fd);
        return opened;
      },
      [](napi_env done_env, Opened& opened) {
        return opened.result < 0 ? ToNumber(done_env, opened.result) : MakeVhostHandle(done_env, std::move(opened.fd));
      });
}

napi_value Adopt(napi_env env, napi_callback_info info) {
  Args args(env, info);
  const int number = args.Int32("fd");
  if (args.failed()) return nullptr;
  UniqueFd fd;
  const Result result = AdoptFd(number, &fd);
  return result < 0 ? ToNumber(env, result) : MakeVhostHandle(env, std::move(fd));
}

napi_value FdNumber(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  if (args.failed()) return nullptr;
  return ToNumber(env, handle->slot->state == VhostSlot::kOpen ? handle->slot->device.fd() : -EBADF);
}

napi_value Close(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  if (args.failed()) return nullptr;
  auto slot = handle->slot;
  if (slot->state == VhostSlot::kClosed) return Resolved(env, 0);
  napi_deferred deferred;
  napi_value promise;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return nullptr;
  slot->closing.push_back(deferred);
  if (slot->state == VhostSlot::kOpen) {
    slot->state = VhostSlot::kClosing;
    if (slot->running == 0) BeginClose(env, slot);
  }
  return promise;
}

/// The ioctls without an argument.
template <Result (VhostNet::*Method)()>
napi_value Plain(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "vhost", handle, [](VhostNet& device) { return (device.*Method)(); });
}

struct Words {
  Result result = 0;
  uint64_t words[2] = {};
};

/// The ioctls that answer a u64.
template <Result (VhostNet::*Method)(uint64_t*)>
napi_value GetWord(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  if (args.failed()) return nullptr;
  return RunOnVhost(
      env, "vhost", handle,
      [](VhostNet& device) {
        Words answer;
        answer.result = (device.*Method)(answer.words);
        return answer;
      },
      [](napi_env done_env, Words& answer) {
        return answer.result < 0 ? ToNumber(done_env, answer.result) : ToBigInt(done_env, answer.words[0]);
      });
}

template <Result (VhostNet::*Method)(uint64_t)>
napi_value SetWord(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint64_t word = args.U64("features");
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "vhost", handle, [word](VhostNet& device) { return (device.*Method)(word); });
}

napi_value GetFeaturesArray(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  if (args.failed()) return nullptr;
  return RunOnVhost(
      env, "VHOST_GET_FEATURES_ARRAY", handle,
      [](VhostNet& device) {
        Words answer;
        answer.result = device.GetFeaturesArray(answer.words);
        return answer;
      },
      [](napi_env done_env, Words& answer) -> napi_value {
        if (answer.result < 0) return ToNumber(done_env, answer.result);
        napi_value list = nullptr;
        if (napi_create_array_with_length(done_env, 2, &list) != napi_ok) return nullptr;
        for (uint32_t i = 0; i < 2; i++) napi_set_element(done_env, list, i, ToBigInt(done_env, answer.words[i]));
        return list;
      });
}

napi_value SetFeaturesArray(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint64_t word0 = args.U64("word0");
  const uint64_t word1 = args.U64("word1");
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "VHOST_SET_FEATURES_ARRAY", handle, [word0, word1](VhostNet& device) {
    const uint64_t words[2] = {word0, word1};
    return device.SetFeaturesArray(words);
  });
}

napi_value SetForkFromOwner(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint32_t value = args.Uint32("value");
  if (!args.failed() && value > 0xff) args.RangeError("value", "one byte");
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "VHOST_SET_FORK_FROM_OWNER", handle,
                    [value](VhostNet& device) { return device.SetForkFromOwner(static_cast<uint8_t>(value)); });
}

bool HasClosed(const std::vector<std::shared_ptr<Mapping>>& mappings) {
  for (const auto& mapping : mappings) {
    if (mapping == nullptr) return true;
  }
  return false;
}

napi_value SetMemTable(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const auto words = args.U64List("regions");
  auto mappings = args.Mappings("mappings");
  const uint32_t padding = args.Uint32("padding");
  if (!args.failed() && words.size() % 3 != 0) args.RangeError("regions", "three values a region");
  if (args.failed()) return nullptr;
  if (HasClosed(mappings)) return Resolved(env, -EINVAL);
  std::vector<MemoryRegion> regions;
  for (size_t i = 0; i < words.size(); i += 3) regions.push_back({words[i], words[i + 1], words[i + 2]});
  return RunOnVhost(env, "VHOST_SET_MEM_TABLE", handle,
                    [regions = std::move(regions), mappings = std::move(mappings), padding](VhostNet& device) mutable {
                      return device.SetMemTable(regions, std::move(mappings), padding);
                    });
}

napi_value SetLogBase(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint64_t hva = args.U64("hva");
  auto* log = args.HandleOrNull<MappingHandle>();
  if (args.failed()) return nullptr;
  if (log != nullptr && log->mapping == nullptr) return Resolved(env, -EINVAL);
  auto mapping = log == nullptr ? nullptr : log->mapping;
  return RunOnVhost(env, "VHOST_SET_LOG_BASE", handle, [hva, mapping = std::move(mapping)](VhostNet& device) mutable {
    return device.SetLogBase(hva, std::move(mapping));
  });
}

napi_value SetLogFd(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const int number = args.Int32("fd");
  if (args.failed()) return nullptr;
  LentFd fd(number);
  if (fd.error() < 0) return Resolved(env, fd.error());
  return RunOnVhost(env, "VHOST_SET_LOG_FD", handle,
                    [fd = std::move(fd)](VhostNet& device) { return device.SetLogFd(fd.number()); });
}

napi_value FreeWorker(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint32_t worker_id = args.Uint32("workerId");
  if (args.failed()) return nullptr;
  return RunOnVhost(env, "VHOST_FREE_WORKER", handle,
                    [worker_id](VhostNet& device) { return device.FreeWorker(worker_id); });
}

constexpr size_t kMostArgument = size_t{1} << 20;

struct RawAnswer {
  Result result = 0;
  std::vector<uint8_t> argument;
};

napi_value Ioctl(napi_env env, napi_callback_info info) {
  Args args(env, info);
  auto* handle = args.Handle<VhostHandle>();
  const uint32_t request = args.Uint32("request");
  const auto argument = args.BytesOrNull("argument");
  if (!args.failed() && argument.length > kMostArgument) args.RangeError("argument", "1 MiB at most");
  if (args.failed()) return nullptr;
  const bool has_argument = argument.value != nullptr;
  std::vector<uint8_t> bytes;
  napi_ref kept = nullptr;
  if (has_argument) {
    bytes.assign(argument.data, argument.data + argument.length);
    if (napi_create_reference(env, argument.value, 1, &kept) != napi_ok) return nullptr;
  }
  return RunOnVhost(
      env, "ioctl", handle,
      [request, has_argument, bytes = std::move(bytes)](VhostNet& device) mutable {
        // An empty argument is not a null one: it points at the guard page.
        uint8_t nothing = 0;
        uint8_t* data = bytes.empty() ? &nothing : bytes.data();
        RawAnswer answer;
        answer.result = device.Ioctl(request, has_argument ? data : nullptr, bytes.size());
        answer.argument = std::move(bytes);
        return answer;
      },
      [kept](napi_env done_env, RawAnswer& answer) {
        napi_value array = nullptr;
        napi_typedarray_type type;
        size_t length = 0;
        void* data = nullptr;
        if (kept != nullptr && napi_get_reference_value(done_env, kept, &array) == napi_ok && array != nullptr &&
            napi_get_typedarray_info(done_env, array, &type, &length, &data, nullptr, nullptr) == napi_ok &&
            length > 0) {
          memcpy(data, answer.argument.data(), std::min(length, answer.argument.size()));
        }
        if (kept != nullptr) napi_delete_reference(done_env, kept);
        return ToNumber(done_env, answer.result);
      });
}

constexpr Entry kEntries[] = {
    {"vhostOpen", Open},
    {"vhostAdopt", Adopt},
    {"vhostFdNumber", FdNumber},
    {"vhostClose", Close},
    {"vhostSetOwner", Plain<&VhostNet::SetOwner>},
    {"vhostResetOwner", Plain<&VhostNet::ResetOwner>},
    {"vhostGetFeatures", GetWord<&VhostNet::GetFeatures>},
    {"vhostSetFeatures", SetWord<&VhostNet::SetFeatures>},
    {"vhostGetFeaturesArray", GetFeaturesArray},
    {"vhostSetFeaturesArray", SetFeaturesArray},
    {"vhostGetBackendFeatures", GetWord<&VhostNet::GetBackendFeatures>},
    {"vhostSetBackendFeatures", SetWord<&VhostNet::SetBackendFeatures>},
    {"vhostSetForkFromOwner", SetForkFromOwner},
    {"vhostGetForkFromOwner", Plain<&VhostNet::GetForkFromOwner>},
    {"vhostSetMemTable", SetMemTable},
    {"vhostSetLogBase", SetLogBase},
    {"vhostSetLogFd", SetLogFd},
    {"vhostNewWorker", Plain<&VhostNet::NewWorker>},
    {"vhostFreeWorker", FreeWorker},
    {"vhostIoctl", Ioctl},
};

}  // namespace

void DefineVhost(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
