"""Sessions of onnxruntime: what was checked is what is read, on the providers that were asked for."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime as ort

from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.scoring.modelfile import runtime_reason

__all__ = ["check_providers", "load_session"]


def check_providers(providers: Sequence[str]) -> None:
    """Refuse execution providers that this onnxruntime has not.

    Raises
    ------
    ConfigError
    """
    available = ort.get_available_providers()
    lacking = [p for p in providers if p not in available]
    if lacking:
        raise ConfigError(f"this onnxruntime has no {', '.join(lacking)}; it has {', '.join(available)}")


def load_session(data: bytes, name: str, *, threads: int, providers: Sequence[str]) -> ort.InferenceSession:
    """Return a session of a graph.

    Raises
    ------
    BadModel
        The runtime cannot load it; the message begins with the name of the model.
    ConfigError
        The preferred provider could not start, and the model would run on another one.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked is what is read
    try:
        session = ort.InferenceSession(data, options, providers=list(providers))
    except Exception as error:  # noqa: BLE001  onnxruntime has a dozen exception types without a common base
        raise BadModel(f"{name}: onnxruntime cannot load it: {runtime_reason(error)}") from None
    if providers and providers[0] not in session.get_providers():
        raise ConfigError(
            f"{name}: {providers[0]} was asked for, but could not start here, and the model would run on "
            f"{', '.join(session.get_providers())}"
        )
    session.disable_fallback()
    return session
