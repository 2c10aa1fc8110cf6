"""KV blocks: who holds them, which are free, which free ones are worth keeping."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence

from ragschema.errors import InternalError


class BlockPool:
    """Blocks with reference counts, and the contents of those that are full.

    A block is held (references > 0), cached (none, but its contents have a name
    and may be found again) or empty. Cached blocks count as free: the one that
    was not used for longest is given away when no empty one is left.

    Args:
        total: blocks.
        reuse: False never names a block.
    """

    def __init__(self, total: int, reuse: bool = True) -> None:
        self.total = total
        self._reuse = reuse
        self._references = [0] * total
        self._empty: deque[int] = deque(range(total))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._name_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Blocks that can be allocated."""
        return len(self._empty) + len(self._cached)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - self.free

    def allocate(self, count: int) -> list[int] | None:
        """That many blocks with one reference each; None when there are too few."""
        if count > self.free:
            return None
        return [self._take() for _ in range(count)]

    def _take(self) -> int:
        if self._empty:
            block = self._empty.popleft()
        else:
            block, _ = self._cached.popitem(last=False)
            del self._block_of[self._name_of.pop(block)]
        self._references[block] = 1
        return block

    def hold(self, blocks: Iterable[int]) -> None:
        """Adds a reference to each; revives cached ones."""
        for block in blocks:
            if self._references[block] == 0:
                del self._cached[block]
            self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Drops a reference of each. The last ones of a table are evicted first,
        as they are useless without those before them."""
        for block in reversed(blocks):
            self._references[block] -= 1
            assert self._references[block] >= 0, f"block {block} was released twice"
            if self._references[block] == 0:
                if block in self._name_of:
                    self._cached[block] = None
                else:
                    self._empty.append(block)

    def name(self, block: int, name: bytes) -> None:
        """Makes a full, computed block findable; the first of equal ones is kept."""
        if self._reuse and name not in self._block_of and block not in self._name_of:
            self._name_of[block] = name
            self._block_of[name] = block

    def forget(self, blocks: Iterable[int]) -> None:
        """Makes blocks that somebody holds unfindable."""
        for block in blocks:
            assert self._references[block] > 0, f"block {block} is not held"
            name = self._name_of.pop(block, None)
            if name is not None:
                del self._block_of[name]

    def find(self, names: Sequence[bytes]) -> list[int]:
        """Blocks of the longest known head of a chain; ``hold`` them at once."""
        found = []
        for name in names:
            block = self._block_of.get(name)
            if block is None:
                break
            found.append(block)
        return found

    def cached_among(self, blocks: Iterable[int]) -> int:
        """How many of these count as free until they are held."""
        return sum(block in self._cached for block in blocks)

    def check_integrity(self, tables: Iterable[Sequence[int]]) -> None:
        """Compares the counts with the block tables of all live sequences.

        Raises:
            InternalError: a block leaked, is held twice in one table, or is both
                held and free.
        """
        held: Counter[int] = Counter()
        for table in tables:
            if len(set(table)) != len(table):
                raise InternalError(f"a block table holds a block twice: {list(table)}")
            held.update(table)
        for block, references in enumerate(self._references):
            if references != held[block]:
                raise InternalError(
                    f"block {block} has {references} references, {held[block]} tables hold it"
                )
        free = [*self._empty, *self._cached]
        unheld = {block for block in range(self.total) if held[block] == 0}
        if len(free) != len(set(free)) or set(free) != unheld:
            raise InternalError(f"{len(free)} blocks are free, {len(unheld)} are not held")
        if {block: name for name, block in self._block_of.items()} != self._name_of:
            raise InternalError("the names of blocks do not match the blocks of names")
        if any(block not in self._name_of for block in self._cached):
            raise InternalError("a cached block has no name")
