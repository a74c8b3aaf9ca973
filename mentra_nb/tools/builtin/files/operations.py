"""The operations of the tool `files` as a model writes them: their names are the original runtime's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Operation(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", populate_by_name=True)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths it names."""
        raise NotImplementedError


class _OnPath(_Operation):
    if TYPE_CHECKING:  # each declares it after its name, as a model writes it
        path: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)


class Read(_OnPath):
    """Lines of a text file, numbered."""

    op: Literal["read"]
    path: str
    offset: int = Field(1, ge=1, description="First line, from 1.")
    limit: int = Field(2000, ge=0, description="Lines at most.")


class List(_OnPath):
    """What is in a folder."""

    op: Literal["list"]
    path: str
    depth: int = Field(1, ge=0, description="1: direct children.")
    limit: int = Field(200, ge=0)


class Search(_OnPath):
    """Lines of text files below a folder, or of one file, that a regular expression matches."""

    op: Literal["search"]
    path: str
    pattern: str = Field(description="Python regular expression.")
    limit: int = Field(200, ge=0)


class Create(_OnPath):
    """A new file. A path that ends in `/` makes a folder."""

    op: Literal["create"]
    path: str
    content: str


class Set(_OnPath):
    """The whole new content of a file that exists."""

    op: Literal["set"]
    path: str
    content: str


class Replace(_OnPath):
    """Replace a text that occurs once, or as often as expected."""

    op: Literal["replace"]
    path: str
    old: str
    new: str
    replace_all: bool = Field(False, alias="replaceAll")
    expected_replacements: int | None = Field(None, ge=0, alias="expectedReplacements")


class Insert(_OnPath):
    """Insert text before or after another."""

    op: Literal["insert"]
    path: str
    anchor: str
    position: Literal["before", "after"]
    content: str
    occurrence: int | None = Field(None, ge=1, description="If the anchor occurs several times.")


class Patch(_OnPath):
    """Apply the hunks of a unified diff to one file."""

    op: Literal["patch"]
    path: str
    patch: str


class Move(_Operation):
    """Move a file to a free path."""

    op: Literal["move"]
    source: str = Field(alias="from")
    to: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.source, self.to)


class Delete(_OnPath):
    """Delete a file or an empty folder."""

    op: Literal["delete"]
    path: str


Operation = Annotated[
    Read | List | Search | Create | Set | Replace | Insert | Patch | Move | Delete, Field(discriminator="op")
]
READING = (Read, List, Search)


class Files(BaseModel):
    """The arguments of the tool `files`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=True)

    operations: list[Operation] = Field(description="Done in order; a later one sees the earlier ones.")
    working_directory: str | None = Field(None, alias="workingDirectory", description="Folder for relative paths.")


def reads_only(operations: list[Operation]) -> bool:
    """Return whether operations change nothing."""
    return all(isinstance(each, READING) for each in operations)
