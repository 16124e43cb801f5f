"""Everything on disk: blobs, images, snapshots, the build cache (architecture § On disk)."""

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.store.store import Store

__all__ = ["Store"]


def __getattr__(name: str) -> object:
    # The processes around a container import `store.layout` and `store.files` alone, and must stay small.
    if name == "Store":
        from nbcontain.store.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
