from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsentry.memory.vma import GUARD_GAP, SharedAnonymous, Vma, VmaSet

PAGE = 4096
LOW, HIGH = 16 * PAGE, 64 * PAGE


def area(start: int, end: int, prot: int = 3, **fields: object) -> Vma:
    return Vma(start * PAGE, end * PAGE, prot, 2, **fields)  # type: ignore[arg-type]


def put(vmas: VmaSet, vma: Vma) -> None:
    vmas.replace(vma.start, vma.end, vma)


def ranges(vmas: VmaSet) -> list[tuple[int, int, int]]:
    return [(vma.start // PAGE, vma.end // PAGE, vma.prot) for vma in vmas]


def test_alike_neighbours_become_one_area():
    vmas = VmaSet()
    put(vmas, area(1, 2))
    put(vmas, area(3, 4))
    put(vmas, area(2, 3))
    assert ranges(vmas) == [(1, 4, 3)]


def test_a_hole_splits_an_area():
    vmas = VmaSet()
    put(vmas, area(1, 9))
    vmas.replace(3 * PAGE, 5 * PAGE, None)
    assert ranges(vmas) == [(1, 3, 3), (5, 9, 3)]
    assert vmas.find(4 * PAGE) is None
    assert vmas.total == 6 * PAGE


def test_parts_of_a_file_keep_their_offsets_and_join_again():
    file = SharedAnonymous()
    vmas = VmaSet()
    put(vmas, area(1, 9, file=file))
    vmas.change(3 * PAGE, 5 * PAGE, lambda vma: vma.changed(prot=1))
    assert [vma.offset // PAGE for vma in vmas] == [0, 2, 4]
    assert file.references == 3
    vmas.change(3 * PAGE, 5 * PAGE, lambda vma: vma.changed(prot=3))
    assert ranges(vmas) == [(1, 9, 3)]
    assert file.references == 1


def test_a_file_nobody_maps_any_more_is_an_orphan():
    file = SharedAnonymous()
    vmas = VmaSet()
    put(vmas, area(1, 9, file=file))
    vmas.replace(0, 20 * PAGE, None)
    assert vmas.orphans == [file]


def test_rollback_restores_what_a_change_replaced():
    vmas = VmaSet()
    put(vmas, area(1, 4))
    put(vmas, area(6, 8))
    vmas.begin()
    put(vmas, area(2, 7, prot=1))
    vmas.replace(0, 3 * PAGE, None)
    vmas.rollback()
    assert ranges(vmas) == [(1, 4, 3), (6, 8, 3)]


def test_room_is_left_below_a_growing_area():
    vmas = VmaSet()
    put(vmas, Vma(1 << 30, (1 << 30) + PAGE, 3, 0x102))
    assert vmas.highest_gap(PAGE, 0, 1 << 30) == (1 << 30) - GUARD_GAP - PAGE


operations = st.lists(
    st.tuples(st.sampled_from(["map", "unmap", "protect", "place"]), st.integers(16, 63), st.integers(1, 12),
              st.integers(0, 2)),
    max_size=60,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(operations)
def test_the_set_agrees_with_a_table_of_pages(steps: list[tuple[str, int, int, int]]):
    vmas, pages = VmaSet(), dict[int, int]()
    for kind, first, count, prot in steps:
        last = min(first + count, 64)
        vmas.begin()
        if kind == "place":
            found = vmas.highest_gap(count * PAGE, LOW, HIGH)
            expected = next((p for p in range(64 - count, 15, -1) if not {*range(p, p + count)} & {*pages}), None)
            assert found == (None if expected is None else expected * PAGE)
            if expected is None:
                continue
            first, last, kind = expected, expected + count, "map"
        if kind == "map":
            put(vmas, area(first, last, prot))
            pages.update(dict.fromkeys(range(first, last), prot))
        elif kind == "unmap":
            vmas.replace(first * PAGE, last * PAGE, None)
            for page in range(first, last):
                pages.pop(page, None)
        else:
            vmas.change(first * PAGE, last * PAGE, lambda vma, prot=prot: vma.changed(prot=prot))
            pages.update({page: prot for page in range(first, last) if page in pages})
        check(vmas, pages)
        before = ranges(vmas)
        vmas.begin()
        vmas.replace(20 * PAGE, 30 * PAGE, area(20, 30, 7))
        vmas.replace(25 * PAGE, 50 * PAGE, None)
        vmas.rollback()
        assert ranges(vmas) == before


def check(vmas: VmaSet, pages: dict[int, int]) -> None:
    assert {p: prot for start, end, prot in ranges(vmas) for p in range(start, end)} == pages
    assert vmas.total == len(pages) * PAGE
    previous = None
    for vma in vmas:
        assert previous is None or not vma.continues(previous)
        previous = vma


@settings(max_examples=150, deadline=None)
@given(operations)
def test_gaps_are_found_however_the_search_hint_stands(steps: list[tuple[str, int, int, int]]):
    vmas, pages = VmaSet(), set[int]()
    for kind, first, count, _ in steps:
        if kind in ("map", "place"):
            found = vmas.highest_gap(count * PAGE, LOW, HIGH)
            expected = next((p for p in range(64 - count, 15, -1) if not pages & set(range(p, p + count))), None)
            assert found == (None if expected is None else expected * PAGE)
            if expected is not None:
                put(vmas, area(expected, expected + count))
                pages |= set(range(expected, expected + count))
        else:
            last = min(first + count, 64)
            vmas.replace(first * PAGE, last * PAGE, None)
            pages -= set(range(first, last))


def test_ten_thousand_areas_stay_fast():
    vmas = VmaSet()
    for index in range(10_000):
        start = vmas.highest_gap(PAGE, LOW, 1 << 46)
        assert start is not None
        put(vmas, Vma(start, start + PAGE, index % 2, 2))
    assert len(vmas) == 10_000
