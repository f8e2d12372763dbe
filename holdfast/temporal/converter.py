"""How payloads are written: pydantic's JSON, for the data types of `holdfast.domain.steps`."""

from temporalio.contrib.pydantic import pydantic_data_converter

DATA_CONVERTER = pydantic_data_converter
