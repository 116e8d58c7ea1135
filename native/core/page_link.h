#ifndef VHOST_NET_CORE_PAGE_LINK_H_
#define VHOST_NET_CORE_PAGE_LINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/page_stream.h"

namespace vhost_net {

/// The frame header of the migration stream (lib/migration/frame.ts has the same).
constexpr size_t kFrameHeader = 20;
constexpr uint32_t kStreamMagic = 0x4d4e4856;
constexpr uint16_t kTypePages = 4;
/// Longest payload of any other frame on a page connection: those are short JSON texts.
constexpr size_t kMaxOtherPayload = 65536;

/// Why a call on a link came back.
enum class LinkStatus : uint32_t {
  /// Everything queued was sent.
  kDone = 0,
  /// The budget is used up: call again.
  kMore = 1,
  /// The socket was not ready within the wait: call again when it is.
  kBlocked = 2,
  /// A frame that is not PAGES lies in other().
  kOther = 3,
  /// The peer has ended its side; other() has what there is of a frame.
  kEnd = 4,
  /// A PAGES frame is wrong.
  kViolation = 5,
};

/// Bounds of one call, so that no thread is held for long: bytes after which it comes back, and milliseconds it waits
/// for a socket that is not ready.
struct LinkLimits {
  uint64_t budget;
  int wait_ms;
};

struct LinkCounts {
  PageCounts pages;
  uint64_t bytes = 0;
};

/// Gives a UNIX socket room for several frames, so that the peer reads one while the next is packed: as much as
/// net.core.wmem_max allows. Left alone is TCP, which finds its own size.
void WidenLocalSocket(int socket);

/// The sending end of a page connection over a stream socket. One call at a time.
class PageWriter {
 public:
  /// `sequence` is the number of the next frame, `seed` the checksum's.
  PageWriter(uint32_t seed, uint32_t sequence) : seed_(seed), sequence_(sequence) {}

  /// Pages to send with the calls of Send that follow; all pages queued before must be gone.
  void Queue(std::vector<PageRun> runs, uint32_t round);
  /// A frame of another type, behind what was begun. -EBUSY while something else is queued.
  Result QueueFrame(uint16_t type, const uint8_t* payload, size_t length);
  /// Sends what is queued, whether `socket` blocks or not. A LinkStatus, or a negative errno after which the connection
  /// is of no use.
  Result Send(int socket, const PageStore& store, const LinkLimits& limits, LinkCounts* counts);

 private:
  bool Pending() const { return sent_ < head_.size() + data_length_; }
  Result Flush(int socket, int wait_ms, LinkCounts* counts);
  void Pack(const PageStore& store, LinkCounts* counts);
  void WriteHeader(uint16_t type, size_t length, size_t covered);

  const uint32_t seed_;
  uint32_t sequence_;
  uint32_t round_ = 0;
  std::vector<PageRun> runs_;
  RunCursor cursor_ = {nullptr, 0};
  /// Header and head of the frame on its way, then its data; both are kept from frame to frame.
  std::vector<uint8_t> head_;
  std::unique_ptr<uint8_t[]> data_;
  size_t data_length_ = 0;
  size_t sent_ = 0;
};

/// The receiving end. One call at a time.
class PageReader {
 public:
  PageReader(uint32_t seed, uint32_t sequence) : seed_(seed), sequence_(sequence) {}

  /// Takes PAGES frames of `round` into the store until something else happens. Never reads behind the frame it is in.
  Result Receive(int socket, PageStore* store, uint32_t round, const LinkLimits& limits, LinkCounts* counts);
  const PageViolation& violation() const { return violation_; }
  /// Number of the next frame, or of the one that lies there.
  uint32_t sequence() const { return sequence_; }
  /// Header and payload of a frame of another type, which counts as read once it is taken; a header that is no header,
  /// or a payload that is too long for such a frame, is left to whoever asks for it.
  std::vector<uint8_t> TakeOther();

 private:
  /// kDone once `got` has reached `length`, else why not yet.
  Result Fill(int socket, uint8_t* target, size_t length, size_t* got, int wait_ms, LinkCounts* counts);
  bool IsPagesHeader() const;
  Result Process(PageStore* store, uint32_t round, LinkCounts* counts);
  size_t OtherPayload() const;

  const uint32_t seed_;
  uint32_t sequence_;
  uint8_t header_[kFrameHeader] = {};
  size_t header_got_ = 0;
  std::unique_ptr<uint8_t[]> payload_;
  size_t payload_got_ = 0;
  PageViolation violation_;
};

}  // namespace vhost_net

#endif
