"""Codecs: how a clip's frames become a sample's payload and back. One file each; `CODECS` is the list."""

from __future__ import annotations

from vidpipe.errors import UsageError
from vidpipe.recipes import nearest
from vidpipe.shards.codecs.base import Codec, CodecSpec, EncodedClip
from vidpipe.shards.codecs.jpeg import JpegCodec
from vidpipe.shards.codecs.tensor import TensorCodec

__all__ = ["CODECS", "Codec", "CodecSpec", "EncodedClip", "make_codec"]

CODECS: dict[str, type[Codec]] = {"jpeg": JpegCodec, "tensor": TensorCodec}


def make_codec(spec: CodecSpec) -> Codec:
    """The codec that `spec` names.

    Raises:
        UsageError: there is none of that name; the message lists those that there are.
    """
    if spec.name not in CODECS:
        raise UsageError(f"no codec {spec.name!r}{nearest(spec.name, CODECS)}")
    return CODECS[spec.name](spec)
