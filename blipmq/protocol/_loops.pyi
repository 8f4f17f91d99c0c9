from array import array

def scan_publishes(
    buffer: bytearray | bytes,
    start: int,
    end: int,
    stride: int,
    head: bytes,
    length_max: int,
    /,
) -> array[int]: ...
def scan_topics(
    buffer: bytearray | bytes,
    start: int,
    end: int,
    length_max: int,
    known: dict[bytes, bytes],
    known_max: int,
    /,
) -> tuple[array[int], list[bytes]]: ...
def stamp_range(buffer: bytearray, start: int, stride: int, count: int, first: int, /) -> None: ...
def stamp_offsets(buffer: bytearray, offsets: array[int], first: int, /) -> None: ...
