import json
import weakref
from collections import Counter
from itertools import pairwise
from time import thread_time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches import CONNECTIONS, create_batch
from ticker.messages import ConnectionId, SnapshotBatch
from ticker.publishers.outbox import PARTS_MAX, Outbox, Parcel


def seqs(parcel: Parcel) -> list[int]:
    """Sequence numbers, read from the payloads."""
    found = [int(json.loads(bytes(payload))["seq"]) for payload in parcel.payloads()]
    columns = [int(seq) for part in parcel for seq in part.batch.seqs[part.start : part.stop]]
    assert found == columns
    return found


def commands_of(batch: SnapshotBatch) -> dict[int, bytes]:
    """Each message's bytes by sequence number."""
    ends = pairwise(batch.starts.tolist())
    return {
        int(seq): bytes(batch.buffer[begin:end])
        for seq, (begin, end) in zip(batch.seqs, ends, strict=True)
    }


def test_first_in_first_out() -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 2, 1]), now=5.0)
    outbox.add(create_batch([3], first_seq=4), now=6.0)
    assert len(outbox) == 4
    assert outbox.oldest_at == 5.0
    assert seqs(outbox.take(2)) == [1, 2]
    assert seqs(outbox.take(10)) == [3, 4]
    assert outbox.oldest_at is None


def test_a_whole_batch_goes_out_without_a_copy() -> None:
    outbox = Outbox(100)
    batch = create_batch([1, 2, 3])
    outbox.add(batch, now=0.0)
    commands = outbox.take(2).commands()
    assert isinstance(commands, memoryview)
    assert commands.obj is batch.buffer.obj


def test_conflation_keeps_the_newest_of_each_slot_in_the_place_of_its_oldest() -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 2, 3]), now=0.0)
    outbox.add(create_batch([3, 1, 1], first_seq=4), now=1.0)
    tally = outbox.conflate()
    assert tally.messages == 3
    assert tally.ticks == {CONNECTIONS[0]: 3}
    assert outbox.oldest_at == 0.0
    assert seqs(outbox.take(10)) == [6, 2, 4]


def test_conflated_messages_do_not_keep_dead_buffers_alive() -> None:
    """Of each batch less than half stays newest: its buffer must go, by and by all of them."""
    outbox = Outbox(1000)
    buffers: list[weakref.ref[object]] = []
    for number in range(20):
        slots = [*range(number, number + 8), *range(100, 112)]
        batch = create_batch(slots, first_seq=1 + 20 * number, payload_size=1000)
        storage = np.frombuffer(batch.buffer, np.uint8).copy()
        buffers.append(weakref.ref(storage))
        outbox.add(msgspec.structs.replace(batch, buffer=storage.data), now=0.0)
        del batch, storage
        outbox.conflate()
    assert sum(ref() is not None for ref in buffers) <= 1
    assert len(outbox) == 27 + 12
    kept = seqs(outbox.take(100))
    assert kept[:3] == [1, 21, 41]


def test_put_back_goes_out_first_unless_something_newer_waits() -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 2, 3]), now=0.0)
    parcel = outbox.take(3)
    outbox.add(create_batch([2], first_seq=4), now=1.0)
    answered, back = parcel.split(1)
    outbox.put_back(back)
    assert seqs(answered) == [1]
    assert outbox.seq_range() == (2, 4)
    assert outbox.conflate().messages == 1
    assert seqs(outbox.take(10)) == [4, 3]


def test_put_back_keeps_the_order() -> None:
    outbox = Outbox(100)
    for first_seq in (1, 3, 5):
        outbox.add(create_batch([1, 2], first_seq=first_seq), now=0.0)
    outbox.put_back(outbox.take(5))
    assert seqs(outbox.take(10)) == [1, 2, 3, 4, 5, 6]


def test_repricings_are_messages_but_no_ticks() -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 1, 1, 2], sources=[0, -1, 0, -1]), now=0.0)
    tally = outbox.conflate()
    assert (tally.messages, tally.ticks) == (2, {CONNECTIONS[0]: 1})
    tally = outbox.take(10).tally()
    assert (tally.messages, tally.ticks) == (2, {CONNECTIONS[0]: 1})


def test_sources_are_told_apart_across_batches() -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 2], sources=[0, 0], connections=CONNECTIONS[:1]), now=0.0)
    later = create_batch(
        [1, 2, 0], first_seq=3, sources=[1, -1, 0], connections=CONNECTIONS[1:], underlyings=[0]
    )
    outbox.add(later, now=0.0)
    assert outbox.conflate().ticks == {CONNECTIONS[0]: 2}
    tally = outbox.take(10).tally()
    assert tally.ticks == {CONNECTIONS[2]: 1, CONNECTIONS[1]: 1}
    assert tally.underlyings == 1


def test_tally_of_batches_from_several_connections() -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 0], sources=[0, -1], connections=CONNECTIONS[:1]), now=0.0)
    later = create_batch(
        [1, 0, 2], sources=[1, 1, -1], connections=CONNECTIONS[1:], underlyings=[0]
    )
    outbox.add(later, now=0.0)
    tally = outbox.take(10).tally()
    assert (tally.messages, tally.underlyings) == (5, 1)
    assert tally.ticks == {CONNECTIONS[0]: 1, CONNECTIONS[2]: 2}


@pytest.mark.parametrize("wanted", [[], [1], [2, 3], [1, 4], [1, 3, 5], [1, 2, 3, 4, 5]])
def test_sift(wanted: list[int]) -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 2, 3, 4], first_seq=0), now=0.0)
    outbox.add(create_batch([5, 6], first_seq=4), now=0.0)
    outbox.take(1)
    picked, others = outbox.take(5).sift([seq - 1 for seq in wanted])
    assert seqs(picked) == wanted
    assert seqs(others) == [seq for seq in range(1, 6) if seq not in wanted]


@pytest.mark.parametrize("is_conflated", [False, True])
def test_what_is_not_valid_any_more_is_sorted_out(is_conflated: bool) -> None:
    outbox = Outbox(100)
    outbox.add(create_batch([1, 2], first_seq=1, valid_until=10.0), now=0.0)
    outbox.add(create_batch([3], first_seq=3), now=0.0)
    outbox.add(create_batch([4], first_seq=4, valid_until=20.0), now=0.0)
    if is_conflated:
        outbox.conflate()
    parcel = outbox.take(100)
    for now, expected in ((9.0, [1, 2, 3, 4]), (10.0, [3, 4]), (20.0, [3])):
        valid, over = parcel.valid(now)
        assert seqs(valid) == expected
        assert sorted(seqs(over) + seqs(valid)) == [1, 2, 3, 4]
    assert Parcel().valid(0.0) == (Parcel(), Parcel())


def test_sorting_out_as_many_refusals_as_parts_does_not_hold_the_event_loop() -> None:
    outbox = Outbox(100_000)
    for seq in range(1000):
        outbox.add(create_batch([seq], first_seq=seq), now=0.0)
    parcel = outbox.take(1000)
    began_s = thread_time()
    picked, others = parcel.sift(range(0, 1000, 2))
    took_s = thread_time() - began_s
    assert (picked.size, others.size) == (500, 500)
    assert took_s < 0.02


def test_the_range_of_what_was_conflated_and_what_came_later() -> None:
    outbox = Outbox(100)
    assert outbox.seq_range() is None
    outbox.add(create_batch([1, 2, 1]), now=0.0)
    assert outbox.seq_range() == (1, 3)
    outbox.conflate()
    assert outbox.seq_range() == (2, 3)
    outbox.add(create_batch([1, 2], first_seq=4), now=0.0)
    assert outbox.seq_range() == (2, 5)
    assert seqs(outbox.take(1)) == [3]
    assert outbox.seq_range() == (2, 5)


def test_full_after_its_bound_and_later_after_twice_the_slots() -> None:
    outbox = Outbox(10)
    full: list[bool] = []
    for slots in (range(10), range(20)):
        outbox.add(create_batch(slots), now=0.0)
        full.append(outbox.is_full)
    assert outbox.conflate().messages == 10
    for slots in (range(20), range(1)):
        outbox.add(create_batch(slots), now=0.0)
        full.append(outbox.is_full)
    assert full == [False, True, False, True]


def test_full_after_so_many_parts_and_not_again_at_once() -> None:
    """Each of them on a slot of its own: nothing is superseded, and still it is sorted once."""
    outbox = Outbox(100_000)
    full: list[bool] = []
    for seq in range(1, PARTS_MAX + 2):
        full.append(outbox.is_full)
        outbox.add(create_batch([seq], first_seq=seq), now=0.0)
    assert not any(full)
    full = [outbox.is_full]
    assert outbox.conflate().messages == 0
    assert [*full, outbox.is_full] == [True, False]
    assert seqs(outbox.take(10**6)) == [*range(1, PARTS_MAX + 2)]


BATCHES = st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 2)), min_size=0, max_size=8)
TAKES = st.tuples(st.integers(0, 10), st.integers(0, 10))
"""How many of those under way are answered, and how many to take next."""


@pytest.mark.slow
@given(st.lists(st.one_of(BATCHES, TAKES, st.just("conflate")), max_size=30))
@settings(max_examples=150)
def test_every_tick_is_waiting_or_accounted_for(
    steps: list[str | list[tuple[int, int]] | tuple[int, int]],
) -> None:
    """Take, put a part back, conflate, add, in any order: nothing lost, doubled or overtaken.

    While a parcel is under way others arrive and are conflated, as happens to the publisher.
    """
    outbox = Outbox(20)
    fed: Counter[ConnectionId] = Counter()
    accounted: Counter[ConnectionId] = Counter()
    commands: dict[int, bytes] = {}
    slot_of: dict[int, int] = {}
    out: list[int] = []
    parcel = Parcel()
    seq = 1
    for step in steps:
        if isinstance(step, str):
            accounted += outbox.conflate().ticks
        elif isinstance(step, tuple):
            answered, back = parcel.split(step[0])
            outbox.put_back(back)
            accounted += answered.tally().ticks
            out += seqs(answered)
            parcel = outbox.take(step[1])
            assert bytes(parcel.commands()) == b"".join(commands[s] for s in seqs(parcel))
        else:
            slots = [slot for slot, _ in step]
            sources = [source for _, source in step]
            batch = create_batch(slots, first_seq=seq, sources=sources, connections=CONNECTIONS)
            outbox.add(batch, now=0.0)
            commands |= commands_of(batch)
            slot_of |= {seq + row: slot for row, slot in enumerate(slots)}
            seq += len(slots)
            fed += Counter(CONNECTIONS[source] for source in sources if source >= 0)
    outbox.put_back(parcel)
    rest = outbox.take(1000)
    assert fed == accounted + rest.tally().ticks
    out += seqs(rest)
    for slot in set(slot_of.values()):
        sent = [s for s in out if slot_of[s] == slot]
        assert sent == sorted(set(sent))
        assert sent[-1] == max(s for s, of in slot_of.items() if of == slot)
