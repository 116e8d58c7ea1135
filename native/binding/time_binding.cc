#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <iterator>

#include "binding/async_call.h"

namespace vhost_net::binding {
namespace {

napi_value Membarrier(napi_env env, napi_callback_info) {
  return RunAsync(env, "membarrier",
                  []() -> Result { return FromCall(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0)); });
}

napi_value MonotonicMicros(napi_env env, napi_callback_info) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  napi_value number = nullptr;
  napi_create_double(env, static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3, &number);
  return number;
}

constexpr Entry kEntries[] = {{"membarrier", Membarrier}, {"monotonicMicros", MonotonicMicros}};

}  // namespace

void DefineTime(napi_env env, napi_value exports) { Define(env, exports, kEntries, std::size(kEntries)); }

}  // namespace vhost_net::binding
