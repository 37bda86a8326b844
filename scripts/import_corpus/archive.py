"""Writes zip archives byte by byte, so that variants that Python's zipfile does not write are possible."""

import struct
import zlib
from dataclasses import dataclass

# 1980-01-01, the earliest date of the format
DATE = 0x21


@dataclass(frozen=True)
class Options:
    """How an archive is written."""

    is_deflated: bool = False
    # sizes and checksum follow the data
    has_descriptors: bool = False
    # sizes are in the 64-bit extra field of the local header, as programs write them that do not know the size before
    is_zip64: bool = False
    # every entry is marked as encrypted
    is_encrypted: bool = False
    comment: bytes = b""
    # bytes before the first entry
    prefix: bytes = b""


PLAIN = Options()
DEFLATED = Options(is_deflated=True)


def archive(parts: dict[str, bytes], options: Options = PLAIN) -> bytes:
    """Returns an archive with these entries in this order."""
    output, directory = bytearray(options.prefix), bytearray()
    for name, content in parts.items():
        offset = len(output)
        output += entry(name, content, options)
        directory += directory_entry(name, content, offset, options)
    start = len(output)
    count, comment = len(parts), options.comment
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), start, len(comment))
    return bytes(output + directory + end + comment)


def packed(content: bytes, options: Options) -> bytes:
    if not options.is_deflated:
        return content
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(content) + compressor.flush()


def flags(options: Options) -> int:
    # bit 11: the names are UTF-8
    return 0x800 | (8 if options.has_descriptors else 0) | (1 if options.is_encrypted else 0)


def entry(name: str, content: bytes, options: Options) -> bytes:
    data, encoded = packed(content, options), name.encode()
    sums = zlib.crc32(content), len(data), len(content)
    extra = b""
    if options.is_zip64:
        extra = struct.pack("<HHQQ", 1, 16, sums[2], sums[1])
        shown = sums[0], 0xFFFFFFFF, 0xFFFFFFFF
    else:
        shown = (0, 0, 0) if options.has_descriptors else sums
    version, method = 45 if options.is_zip64 else 20, 8 if options.is_deflated else 0
    head = struct.pack(
        "<4s5H3I2H", b"PK\3\4", version, flags(options), method, 0, DATE, *shown, len(encoded), len(extra)
    )
    descriptor = struct.pack("<4s3I", b"PK\7\x08", *sums) if options.has_descriptors else b""
    return head + encoded + extra + data + descriptor


def directory_entry(name: str, content: bytes, offset: int, options: Options) -> bytes:
    data, encoded = packed(content, options), name.encode()
    method = 8 if options.is_deflated else 0
    sizes = zlib.crc32(content), len(data), len(content)
    head = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, flags(options), method, 0, DATE, *sizes, len(encoded), 0, 0, 0, 0, 0, offset
    )
    return head + encoded
