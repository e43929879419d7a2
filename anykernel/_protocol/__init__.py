"""What the Jupyter protocol says, as data and pure functions.

Messages and their wire format, outputs and what they add up to, results, replies, values, and the errors. It may import
the standard library and msgspec, and neither does I/O nor knows of anyio or of time. (The one exception is public:
`ConnectionInfo.write`.) A newcomer begins with ``messages``, then ``outputs``, ``fold`` and ``result``.
"""

from .arguments import as_buffers, as_dict, as_integer, as_seconds, as_timeout, check_msg_id, check_text
from .bounded import bounded_reply
from .connection import ConnectionInfo
from .dates import write_date
from .displays import Displays
from .ends import (
    ConnectionClosedError,
    KernelDiedError,
    KernelRestartedError,
    OutcomeUnknownError,
    ReplayError,
    StdinError,
)
from .errors import (
    AnyKernelError,
    ArgumentError,
    CellError,
    CommClosedError,
    ConnectionFileExistsError,
    DebugError,
    KernelSpecError,
    KernelStartError,
    KernelStartTimeoutError,
    MissingDependencyError,
    PoolTimeoutError,
    ProtocolError,
    ServerAuthError,
    ServerError,
    UnsupportedError,
)
from .fold import OutputFold
from .framing import V1, decode_legacy, decode_v1, encode_legacy, encode_v1
from .images import Image
from .kernelspecs import InstalledKernelSpec
from .limits import Limits
from .messages import END_OF_INPUT, Frame, Message, RawMessage, is_idle
from .outputs import OUTPUT_TYPES, DisplayData, ErrorOutput, ExecuteResult, Output, Stream, pages_of, parse_output
from .partial import read_rest
from .replies import (
    CommInfoReply,
    CompleteReply,
    DebugReply,
    HistoryReply,
    InspectReply,
    IsCompleteReply,
    KernelInfo,
    UsageReply,
    read_reply,
)
from .result import (
    ExecutionAbortedError,
    ExecutionError,
    ExecutionTimeoutError,
    Losses,
    Record,
    Result,
    error_of,
    failure_of,
    timeout_error,
)
from .source import SEPARATOR, served_source
from .values import MAIL, MISSING, CannotTravelError, decode, describe, encode
from .widgets import COMM_TYPES, Captures, Widget, WidgetModels
from .wire import BadMessageError, Codec, encode_buffers, encode_parts, loads

__all__ = [
    "COMM_TYPES",
    "END_OF_INPUT",
    "MAIL",
    "MISSING",
    "OUTPUT_TYPES",
    "SEPARATOR",
    "V1",
    "AnyKernelError",
    "ArgumentError",
    "BadMessageError",
    "CannotTravelError",
    "Captures",
    "CellError",
    "Codec",
    "CommClosedError",
    "CommInfoReply",
    "CompleteReply",
    "ConnectionClosedError",
    "ConnectionFileExistsError",
    "ConnectionInfo",
    "DebugError",
    "DebugReply",
    "DisplayData",
    "Displays",
    "ErrorOutput",
    "ExecuteResult",
    "ExecutionAbortedError",
    "ExecutionError",
    "ExecutionTimeoutError",
    "Frame",
    "HistoryReply",
    "Image",
    "InspectReply",
    "InstalledKernelSpec",
    "IsCompleteReply",
    "KernelDiedError",
    "KernelInfo",
    "KernelRestartedError",
    "KernelSpecError",
    "KernelStartError",
    "KernelStartTimeoutError",
    "Limits",
    "Losses",
    "Message",
    "MissingDependencyError",
    "OutcomeUnknownError",
    "Output",
    "OutputFold",
    "PoolTimeoutError",
    "ProtocolError",
    "RawMessage",
    "Record",
    "ReplayError",
    "Result",
    "ServerAuthError",
    "ServerError",
    "StdinError",
    "Stream",
    "UnsupportedError",
    "UsageReply",
    "Widget",
    "WidgetModels",
    "as_buffers",
    "as_dict",
    "as_integer",
    "as_seconds",
    "as_timeout",
    "bounded_reply",
    "check_msg_id",
    "check_text",
    "decode",
    "decode_legacy",
    "decode_v1",
    "describe",
    "encode",
    "encode_buffers",
    "encode_legacy",
    "encode_parts",
    "encode_v1",
    "error_of",
    "failure_of",
    "is_idle",
    "loads",
    "pages_of",
    "parse_output",
    "read_reply",
    "read_rest",
    "served_source",
    "timeout_error",
    "write_date",
]
