"""How payloads are written: Temporal's own JSON, which knows dataclasses, enums and times.

(With pydantic's converter each run built the adapters of its types anew inside the sandbox: 2 to 3 ms of CPU.)
"""

from temporalio.converter import DataConverter

DATA_CONVERTER = DataConverter.default
