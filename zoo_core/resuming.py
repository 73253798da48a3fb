"""Downloads that go on where an earlier command was stopped: the hub's client alone goes on within one call only."""

from __future__ import annotations

from pathlib import Path

from zoo_core.card import is_sha256
from zoo_core.files import appending, make_folder, move, remove, sha256_file


def fetch_blob(repo: str, name: str) -> None:
    """Put a file's content into the hub's cache, going on with what an earlier command left of it.

    What has come so far lies beside the place it will have, as `SHA256.zoo.incomplete`. Only files that the hub
    names by their sha256 are fetched so, which all weights are: whatever is put together is compared with it.
    Everything else (small files, a hub that refuses) is left to the hub's client, which is asked next in any case.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repo, name)
    try:
        about = get_hf_file_metadata(url)
    except Exception:  # the client meets it again, and says what it is
        return
    size = about.size or 0
    if not is_sha256(about.etag or "") or not 0 < size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
        return
    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repo, repo_type="model")
    blob, lock = cache / folder / "blobs" / str(about.etag), cache / ".locks" / folder / f"{about.etag}.lock"
    part = blob.with_name(f"{blob.name}.zoo.incomplete")
    for place in (blob.parent, lock.parent):
        make_folder(place)
    with WeakFileLock(lock):  # the client's own: another command that fetches the same file waits, and finds it there
        if blob.exists():
            return
        with appending(part, size) as file:
            if file.tell() > size:
                file.seek(0)
                file.truncate()
            http_get(url, file, resume_size=file.tell(), headers=build_hf_headers(), expected_size=size)
        if sha256_file(part) == about.etag:
            move(part, blob)
        else:  # damaged on the disk, or by another writer where locks do nothing
            remove(part)
