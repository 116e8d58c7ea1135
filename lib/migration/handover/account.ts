/** Both sides' accounts of the frames of a hand-over, and what does not add up or cannot be known. */

/** What became of the frames in the source's tap from the moment its guest stood. */
export interface SourceAccount {
  /** Read from the tap since then, and those that had been read before and had found no room in the guest. */
  readonly read: number;
  /** Sent to the destination, for its guest. */
  readonly sent: number;
  /** The guest's own, come back. */
  readonly own: number;
  /** Broadcast and flooded ones after the cut, which count at the destination's tap. */
  readonly groupAfterCut: number;
  /** Announcements of the destination that were recognised. */
  readonly markers: number;
  /** Came for the guest when everything for it had been sent. */
  readonly late: number;
  /** Frames that found the tap's queue full, in this time; null where the kernel does not tell. */
  readonly dropped: number | null;
  /** What became the cut: the destination's announcement, or time when it did not come back. */
  readonly cutBy: 'marker' | 'timeout';
  /** Grace periods in which only time has passed. */
  readonly weakGraces: number;
}

/** What became of the frames in the destination's tap, and of those that the source sent. */
export interface DestinationAccount {
  /** Thrown away before the tap was opened. */
  readonly discarded: number;
  /** Read from the tap from then on, until the join. */
  readonly read: number;
  readonly own: number;
  /** Had reached the source's tap before the cut too. */
  readonly matched: number;
  /** Left for the guest. */
  readonly kept: number;
  /** Came from the source, for the guest. */
  readonly received: number;
  readonly dropped: number | null;
  /** Streams whose joins could have been others. */
  readonly ambiguous: number;
  /** Streams whose frames the two taps saw differently. */
  readonly disagreeing: number;
  /** Not for a known address of the guest, and seen at the source's tap after the cut, but not here. */
  readonly missing: number;
  /** With several queues: flows of which it could not be told that the guest had every frame in order. */
  readonly unordered: number;
  readonly weakGraces: number;
  /** The source was heard to the end, and the guest has taken what waited for it. */
  readonly complete: boolean;
  /** From the guest's start to the first frame it was given, and to the first it sent. Milliseconds; null when there was none yet. */
  readonly firstReceivedMs: number | null;
  readonly firstSentMs: number | null;
}

export interface HandoverAccount {
  /** Null where a side was lost before it could give its own. */
  readonly source: SourceAccount | null;
  readonly destination: DestinationAccount | null;
  /** Why it is not certain that every frame was given once, in order; empty when it is. */
  readonly unproven: readonly string[];
}

/** Compares the accounts. */
export function compareAccounts(source: SourceAccount | null, destination: DestinationAccount | null): HandoverAccount {
  const unproven = [
    ...(source === null
      ? ['the source was lost before its tap was empty: what was in it is lost, uncounted']
      : sourceDoubts(source)),
    ...(destination === null
      ? ['the destination runs, and was lost before it could say what became of the frames']
      : destinationDoubts(destination)),
  ];
  if (source !== null && destination !== null) {
    if (!destination.complete) unproven.push('the guest did not take the frames that waited for it');
    if (source.sent !== destination.received) {
      unproven.push(`the source sent ${source.sent} frames and ${destination.received} arrived`);
    }
  }
  const weak = (source?.weakGraces ?? 0) + (destination?.weakGraces ?? 0);
  if (weak > 0) unproven.push(`${weak} grace periods were waits only: this kernel has no membarrier for all threads`);
  return { source, destination, unproven };
}

/** What is said where its condition holds. */
type Doubt = [condition: boolean, what: string];

function told(doubts: readonly Doubt[]): string[] {
  return doubts.filter(([condition]) => condition).map(([, what]) => what);
}

function sourceDoubts(source: SourceAccount): string[] {
  const { read, sent, own, groupAfterCut, markers, late, dropped, cutBy } = source;
  const accounted = sent + own + groupAfterCut + markers;
  return told([
    [read !== accounted, `the source read ${read} frames and accounts for ${accounted}`],
    [late > 0, `${late} frames for the guest came to the source's tap too late`],
    [dropped === null, "the kernel does not tell what the source's tap dropped"],
    [(dropped ?? 0) > 0, `the queue of the source's tap overflowed: ${dropped} frames are lost`],
    [
      cutBy === 'timeout',
      'the announcement did not come back to the source: order across streams is not kept, and repeated frames may be told apart wrongly',
    ],
  ]);
}

function destinationDoubts(destination: DestinationAccount): string[] {
  const { read, own, matched, kept, dropped, ambiguous, disagreeing, missing, unordered } = destination;
  const accounted = own + matched + kept;
  return told([
    [read !== accounted, `the destination read ${read} frames and accounts for ${accounted}`],
    [dropped === null, "the kernel does not tell what the destination's tap dropped"],
    [(dropped ?? 0) > 0, `the queue of the destination's tap overflowed: ${dropped} frames are lost`],
    [ambiguous > 0, `${ambiguous} streams of repeated frames could be joined in several ways`],
    [unordered > 0, `${unordered} flows changed queues, perhaps with frames out of order`],
    [disagreeing > 0, `${disagreeing} streams reached the two taps in different orders`],
    [
      missing > 0,
      `${missing} frames reached the source's tap after the cut and not the destination's: lost, if for an address of the guest that is not known`,
    ],
  ]);
}
