"""Reader of IDX, the format of the MNIST files: a magic number, big-endian sizes, then the elements."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdzoo.errors import DataError

# Third byte of the magic number -> NumPy type, as LeCun's page on MNIST defines them.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# Recognised by content, not by name: an unpacked file may still have the name of the packed one.
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | Path) -> npt.NDArray[Any]:
    """Return the array in an IDX file, gzipped or not, in the machine's byte order.

    Raises:
        DataError: If the file is missing, is not an IDX file, or its length differs from what its header says.
    """
    content = _read_bytes(Path(path))
    # A file that is too short for a header is given an invalid one, so that the same message reports it.
    zeros, code, ndim = struct.unpack(">HBB", content[:4]) if len(content) >= 4 else (1, 0, 0)
    if zeros or code not in _DTYPES or not ndim:
        raise DataError(f"{path} starts with {content[:4].hex() or 'nothing'}; allowed: the magic of an IDX file")
    start = 4 + 4 * ndim
    shape = struct.unpack(f">{ndim}I", content[4:start]) if len(content) >= start else (0,)
    dtype = np.dtype(_DTYPES[code])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(f"{path} has {len(content)} bytes; allowed: {expected}, as its header says")
    # astype also copies, because an array over bytes is read-only.
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; allowed: an IDX file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read or is damaged ({error})") from error
