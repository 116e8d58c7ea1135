#include "core/page_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>

#include "core/crc32.h"

namespace vhost_net {
namespace {

/// Data pages of a frame that is sent: 256 KiB, which stay in a processor's second cache from the copy to the socket.
constexpr size_t kSendPages = 64;
constexpr size_t kChecksumAt = 16;
constexpr int kLocalRoom = 4 << 20;

struct FrameHeader {
  uint32_t magic;
  uint16_t type;
  uint16_t flags;
  uint32_t sequence;
  uint32_t length;
  uint32_t checksum;
};
static_assert(sizeof(FrameHeader) == kFrameHeader);

FrameHeader HeaderOf(const uint8_t* bytes) {
  FrameHeader header;
  memcpy(&header, bytes, sizeof header);
  return header;
}

constexpr Result StatusOf(LinkStatus status) { return static_cast<Result>(status); }

/// 1 when the socket is ready (or has failed, which the next call on it tells), 0 after the wait.
Result WaitFor(int socket, short events, int wait_ms) {
  struct pollfd watched = {socket, events, 0};
  const int ready = poll(&watched, 1, wait_ms);
  return ready < 0 && errno != EINTR ? -errno : ready != 0;
}

}  // namespace

void WidenLocalSocket(int socket) {
  int domain = 0;
  socklen_t length = sizeof domain;
  if (getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || domain != AF_UNIX) return;
  setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &kLocalRoom, sizeof kLocalRoom);
}

void PageWriter::Queue(std::vector<PageRun> runs, uint32_t round) {
  runs_ = std::move(runs);
  cursor_ = {runs_.data(), runs_.size()};
  round_ = round;
}

void PageWriter::WriteHeader(uint16_t type, size_t length, size_t covered) {
  const FrameHeader header = {kStreamMagic, type, 0, sequence_++, static_cast<uint32_t>(length), 0};
  memcpy(head_.data(), &header, kChecksumAt);
  const uint32_t checksum = Crc32(head_.data() + kFrameHeader, covered, Crc32(head_.data(), kChecksumAt, seed_));
  memcpy(head_.data() + kChecksumAt, &checksum, sizeof checksum);
}

Result PageWriter::QueueFrame(uint16_t type, const uint8_t* payload, size_t length) {
  if (Pending() || !cursor_.end()) return -EBUSY;
  head_.resize(kFrameHeader + length);
  if (length > 0) memcpy(head_.data() + kFrameHeader, payload, length);
  WriteHeader(type, length, length);
  data_length_ = 0;
  sent_ = 0;
  return 0;
}

void PageWriter::Pack(const PageStore& store, LinkCounts* counts) {
  if (data_ == nullptr) data_.reset(new uint8_t[kSendPages * kPageSize]);
  head_.resize(kFrameHeader + kMaxHead);
  const PackedPages packed = PackPages(store, &cursor_, round_, kSendPages, head_.data() + kFrameHeader, data_.get());
  head_.resize(packed.counts.pages == 0 ? 0 : kFrameHeader + packed.head);
  data_length_ = packed.data;
  sent_ = 0;
  if (packed.counts.pages == 0) return;
  WriteHeader(kTypePages, packed.head + packed.data, packed.head);
  counts->pages.pages += packed.counts.pages;
  counts->pages.zero_pages += packed.counts.zero_pages;
}

Result PageWriter::Flush(int socket, int wait_ms, LinkCounts* counts) {
  while (Pending()) {
    const size_t head_left = sent_ < head_.size() ? head_.size() - sent_ : 0;
    const size_t data_sent = sent_ < head_.size() ? 0 : sent_ - head_.size();
    struct iovec parts[2] = {{head_.data() + sent_, head_left},
                             {data_.get() + data_sent, data_length_ - data_sent}};
    struct msghdr message = {};
    message.msg_iov = head_left > 0 ? parts : parts + 1;
    message.msg_iovlen = head_left > 0 && data_length_ > 0 ? 2 : 1;
    const ssize_t put = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put >= 0) {
      sent_ += static_cast<size_t>(put);
      counts->bytes += static_cast<uint64_t>(put);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return -errno;
    const Result ready = WaitFor(socket, POLLOUT, wait_ms);
    if (ready < 0) return ready;
    if (ready == 0) return StatusOf(LinkStatus::kBlocked);
  }
  return StatusOf(LinkStatus::kDone);
}

Result PageWriter::Send(int socket, const PageStore& store, const LinkLimits& limits, LinkCounts* counts) {
  const uint64_t before = counts->bytes;
  for (;;) {
    const Result flushed = Flush(socket, limits.wait_ms, counts);
    if (flushed != StatusOf(LinkStatus::kDone)) return flushed;
    if (cursor_.end()) return StatusOf(LinkStatus::kDone);
    if (counts->bytes - before >= limits.budget) return StatusOf(LinkStatus::kMore);
    Pack(store, counts);
  }
}

Result PageReader::Fill(int socket, uint8_t* target, size_t length, size_t* got, int wait_ms, LinkCounts* counts) {
  while (*got < length) {
    const ssize_t came = recv(socket, target + *got, length - *got, MSG_DONTWAIT);
    if (came == 0) return StatusOf(LinkStatus::kEnd);
    if (came > 0) {
      *got += static_cast<size_t>(came);
      counts->bytes += static_cast<uint64_t>(came);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return -errno;
    const Result ready = WaitFor(socket, POLLIN, wait_ms);
    if (ready < 0) return ready;
    if (ready == 0) return StatusOf(LinkStatus::kBlocked);
  }
  return StatusOf(LinkStatus::kDone);
}

bool PageReader::IsPagesHeader() const {
  const FrameHeader header = HeaderOf(header_);
  return header.magic == kStreamMagic && header.type == kTypePages && header.flags == 0 &&
         header.sequence == sequence_ && header.length <= kMaxPagesPayload;
}

size_t PageReader::OtherPayload() const {
  const FrameHeader header = HeaderOf(header_);
  const bool other = header.magic == kStreamMagic && header.type != kTypePages && header.length <= kMaxOtherPayload;
  return other ? header.length : 0;
}

Result PageReader::Receive(int socket, PageStore* store, uint32_t round, const LinkLimits& limits, LinkCounts* counts) {
  const uint64_t before = counts->bytes;
  if (payload_ == nullptr) payload_.reset(new uint8_t[kMaxPagesPayload]);
  for (;;) {
    Result filled = Fill(socket, header_, kFrameHeader, &header_got_, limits.wait_ms, counts);
    if (filled != StatusOf(LinkStatus::kDone)) return filled;
    const bool pages = IsPagesHeader();
    const size_t length = pages ? HeaderOf(header_).length : OtherPayload();
    filled = Fill(socket, payload_.get(), length, &payload_got_, limits.wait_ms, counts);
    if (filled != StatusOf(LinkStatus::kDone)) return filled;
    if (!pages) return StatusOf(LinkStatus::kOther);
    const Result processed = Process(store, round, counts);
    if (processed != StatusOf(LinkStatus::kDone)) return processed;
    if (counts->bytes - before >= limits.budget) return StatusOf(LinkStatus::kMore);
  }
}

Result PageReader::Process(PageStore* store, uint32_t round, LinkCounts* counts) {
  const FrameHeader header = HeaderOf(header_);
  PagesShape shape;
  violation_ = ReadPagesShape(payload_.get(), header.length, &shape);
  if (violation_.code == PageViolation::kNone) {
    const uint32_t checksum = Crc32(payload_.get(), shape.head, Crc32(header_, kChecksumAt, seed_));
    if (checksum != header.checksum) {
      violation_ = {PageViolation::kChecksum, 0, header.checksum, checksum};
    } else if (shape.encoding != kEncodingPlain) {
      violation_ = {PageViolation::kEncoding, 12, shape.encoding, kEncodingPlain};
    } else {
      const Result unpacked =
          UnpackPages(store, payload_.get(), shape, payload_.get() + shape.head, round, &counts->pages, &violation_);
      if (unpacked < 0) return unpacked;
    }
  }
  if (violation_.code != PageViolation::kNone) return StatusOf(LinkStatus::kViolation);
  sequence_++;
  header_got_ = 0;
  payload_got_ = 0;
  return StatusOf(LinkStatus::kDone);
}

std::vector<uint8_t> PageReader::TakeOther() {
  std::vector<uint8_t> frame(header_, header_ + header_got_);
  if (payload_got_ > 0) frame.insert(frame.end(), payload_.get(), payload_.get() + payload_got_);
  if (header_got_ == kFrameHeader && !IsPagesHeader()) {
    sequence_++;
    header_got_ = 0;
    payload_got_ = 0;
  }
  return frame;
}

}  // namespace vhost_net
