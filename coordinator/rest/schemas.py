"""What a client may send: strict models, so that nothing is coerced or ignored."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from coordinator.rest.filters import Filters
from coordinator.rest.names import CollectionName, DocumentId
from ragschema.errors import InvalidInput
from ragschema.types import F32, Metric

DEFAULT_K = 5
MAX_TEXT_CHARS = 32_768
MAX_TURNS = 256
#: Far inside float32, so that squared distances stay finite.
MAX_VECTOR_VALUE = 1e15


class Strict(BaseModel):
    """Base of every body: exact types, no unknown fields, finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _whole(value: object) -> object:
    """JSON knows one kind of number, and 12.0 is an integer to its schemas."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)


def _within(limit: str) -> AfterValidator:
    """Checks against the rig's limit of this name, which arrives as context."""

    def check(value: int, info: ValidationInfo) -> int:
        most = getattr(info.context, limit)
        if value > most:
            raise PydanticCustomError("limit", "Input should be at most {most}", {"most": most})
        return value

    return AfterValidator(check)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "Input should not be blank")
    return text


NOT_BLANK = {"pattern": r"\S"}
Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TEXT_CHARS, json_schema_extra=NOT_BLANK),
    AfterValidator(_not_blank),
]
K = Annotated[int, Field(ge=1, json_schema_extra={"x-limit": "max_k"}), WHOLE, _within("max_k")]
TimeoutMs = Annotated[
    int,
    Field(ge=10, json_schema_extra={"x-limit": "max_timeout_ms"}),
    WHOLE,
    _within("max_timeout_ms"),
]
MinCoverage = Annotated[
    float,
    Field(ge=0, le=1, description="share of the collection that must answer, else 503"),
]
Nprobe = Annotated[int, Field(ge=1, le=65_536, description="inverted lists to scan"), WHOLE]
Recall = Annotated[
    float,
    Field(gt=0, le=1, description="share of the true nearest to reach; sets nprobe"),
]
#: For JSON schemas: a null is as good as nothing.
NOT_BOTH: dict[str, JsonValue] = {
    "not": {
        "required": ["nprobe", "recall"],
        "properties": {"nprobe": {"type": "integer"}, "recall": {"type": "number"}},
    }
}
#: Checked on the whole array: a bound per number costs more than all the rest of a search body.
VectorValue = Annotated[
    float,
    Field(json_schema_extra={"minimum": -MAX_VECTOR_VALUE, "maximum": MAX_VECTOR_VALUE}),
]
Vector = Annotated[list[VectorValue], Field(min_length=1, max_length=65_536)]


class Retrieval(Strict):
    """What every retrieving request may set."""

    k: K = DEFAULT_K
    filters: Filters = Field(default_factory=dict)
    min_coverage: MinCoverage = 0.0
    nprobe: Nprobe | None = None
    recall: Recall | None = None
    timeout_ms: TimeoutMs | None = None

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        if self.nprobe is not None and self.recall is not None:
            raise PydanticCustomError("one_of", "give nprobe or recall, not both")
        return self


class SearchBody(Retrieval):
    """Exactly one of text and vector."""

    model_config = ConfigDict(
        json_schema_extra={
            **NOT_BOTH,
            "oneOf": [
                {"required": ["text"], "properties": {"text": {"type": "string"}}},
                {"required": ["vector"], "properties": {"vector": {"type": "array"}}},
            ],
            "examples": [{"collection": "docs", "text": "rotate the API key", "k": 10}],
        }
    )
    collection: CollectionName
    text: Text | None = None
    vector: Vector | None = None

    @model_validator(mode="after")
    def _one_question(self) -> SearchBody:
        if (self.text is None) == (self.vector is None):
            raise PydanticCustomError("one_of", "give exactly one of text and vector")
        return self

    def vector_array(self) -> F32 | None:
        """float32 [dim]; raises InvalidInput for numbers out of bounds."""
        if self.vector is None:
            return None
        values = np.array(self.vector, dtype=np.float64)
        sizes = np.abs(values)
        if sizes.max() > MAX_VECTOR_VALUE:
            worst = int(sizes.argmax())
            raise InvalidInput(
                f"{self.vector[worst]!r} is not between {-MAX_VECTOR_VALUE:g}"
                f" and {MAX_VECTOR_VALUE:g}",
                field=f"vector.{worst}",
                hint="scale the vector down",
            )
        return values.astype(np.float32)


class ChunkingBody(Strict):
    """How documents are cut, in the embedder's tokens; overlap is at most half of tokens."""

    tokens: Annotated[int, Field(ge=16, le=8192), WHOLE] = 200
    overlap: Annotated[int, Field(ge=0, le=4096), WHOLE] = 32

    @model_validator(mode="after")
    def _overlap_fits(self) -> ChunkingBody:
        if 2 * self.overlap > self.tokens:
            raise PydanticCustomError("overlap", "overlap must be at most half of tokens")
        return self


class CreateCollectionBody(Strict):
    """A new, empty collection."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "docs", "metric": "cosine"}]}
    )
    name: CollectionName
    metric: Metric = Metric.COSINE
    chunking: ChunkingBody = Field(default_factory=ChunkingBody)
    recall: Recall | None = None


class RecallBody(Strict):
    """A default recall; null: what the index is set to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"recall": 0.95}]})
    recall: Recall | None


MetadataKey = Annotated[str, Field(min_length=1, max_length=128)]
MetadataText = Annotated[str, Field(max_length=4096)]
MetadataInt = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
MetadataValue = MetadataText | bool | MetadataInt | float
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=64)]
DocumentText = Annotated[
    str, Field(min_length=1, json_schema_extra=NOT_BLANK), AfterValidator(_not_blank)
]
Title = Annotated[str, Field(max_length=1024)]


class DocumentContent(Strict):
    """The text of a document and what is known about it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "Keys are rotated with ...", "title": "Keys"}]}
    )
    text: DocumentText
    title: Title | None = None
    metadata: Metadata = Field(default_factory=dict)


class DocumentBody(DocumentContent):
    """One document; without an id it gets one made from its text."""

    id: DocumentId | None = None


class DocumentsBody(Strict):
    """Documents to add; those whose id exists are replaced."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "documents": [
                        {
                            "id": "guides/keys",
                            "title": "Keys",
                            "text": "Keys are rotated with ...",
                            "metadata": {"year": 2026},
                        }
                    ]
                }
            ]
        }
    )
    documents: Annotated[
        list[DocumentBody],
        Field(min_length=1, json_schema_extra={"x-limit-items": "max_documents_per_upload"}),
    ]

    @model_validator(mode="after")
    def _few_and_distinct(self, info: ValidationInfo) -> DocumentsBody:
        most = info.context.max_documents_per_upload  # type: ignore[union-attr]
        if len(self.documents) > most:
            raise PydanticCustomError("limit", "send at most {most} documents", {"most": most})
        return self


class PageQuery(Strict):
    """A page of a listing."""

    model_config = ConfigDict(strict=False)
    offset: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] = 0
    limit: Annotated[int, Field(ge=1, le=1000), WHOLE] = 100


class JobsQuery(Strict):
    """Which jobs to list."""

    collection: CollectionName | None = None


class NoQuery(Strict):
    """An operation without query parameters."""


EmbeddingText = Annotated[str, Field(min_length=1, max_length=65_536)]


class EmbeddingsBody(Strict):
    """The OpenAI body; ``purpose`` is ragrig's own."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": ["first text", "second text"]}]}
    )
    input: EmbeddingText | Annotated[list[EmbeddingText], Field(min_length=1, max_length=2048)]
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=65_536), WHOLE] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    purpose: Literal["query", "passage"] = "passage"

    def texts(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)
