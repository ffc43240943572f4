"""Stage diversify: of what was kept, so many that differ. Embeddings of the English instructions, clusters, and one after the
other from every cluster, the best first.

Embeddings come from an endpoint, from sentence-transformers, or from words alone (TF-IDF, reduced by SVD: Deerwester et al. 1990).
Clusters are MiniBatchKMeans's (Sculley 2010), a language at a time.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_gen import UsageError
from data_gen.endpoint import AttemptError, Endpoint, TeacherConfig, backoff
from data_gen.record import canonical_json
from data_gen.x_instruction.measures import entropy
from data_gen.x_instruction.rating import BEST
from data_gen.x_instruction.stage import Stage
from data_gen.x_instruction.work import Work

TOGETHER = 256  # texts of one request


def diversify_inputs(work: Work) -> dict[str, Any]:
    settings = {name: value for name, value in work.settings("seed", "diversify").items() if name != "diversify.url"}
    return {**settings, **work.made_by("refine")}


def make_diverse(work: Work, stage: Stage) -> None:
    """Rows of refine with {"cluster": number}, at most `target` a language."""
    config, found, told = work.config.diversify, dict[str, Any](), list[str]()
    for code in work.languages:
        rows = list(work.stage("refine").rows(code))
        if len(rows) < config.clusters:
            raise UsageError(
                f"diversify: {len(rows):,} samples of {code} are left, fewer than the {config.clusters:,} clusters they are to be "
                "sorted into: give more documents, or fewer clusters, --config.diversify.clusters=N (a tenth of the samples, say)"
            )
        vectors = embed([row["instruction"] for row in rows], work, f"instructions of {code}")
        clusters = cluster(vectors, config.clusters, work.config.seed)
        order = round_robin(clusters, [(-row["rating"]["scores"][BEST], row["id"]) for row in rows])
        chosen, near = choose(vectors, order, config.target, config.max_cosine)
        for place in near:
            stage.reject(code, "near_instruction", rows[place]["id"], rows[place]["instruction"])
        stage.count(code, "beyond_target", len(rows) - len(chosen) - len(near))
        before, after = (
            np.bincount(clusters[some], minlength=config.clusters) for some in (np.arange(len(rows)), np.array(chosen, int))
        )
        stage.write(
            code, ({**rows[place], "cluster": int(clusters[place])} for place in sorted(chosen, key=lambda k: rows[k]["id"]))
        )
        found[code] = {
            "came": len(rows), "kept": len(chosen), "clusters": config.clusters, "empty_clusters": int((before == 0).sum()),
            "entropy_before": round(entropy(before.tolist()), 4), "entropy_after": round(entropy(after.tolist()), 4),
        }  # fmt: skip
        if len(chosen) < config.target:
            told.append(f"{code}: {len(chosen):,} diverse samples, {config.target:,} were wanted")
            work.say(told[-1])
    stage.finish(diversify_inputs(work), found=found | {"embedder": config.embedder, "told": told})


def cluster(vectors: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """[N] the cluster of each vector [N, D]; the same for the same vectors and seed."""
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=max(1024, 3 * clusters))
    return np.asarray(model.fit_predict(vectors), np.int64)


def round_robin(clusters: np.ndarray, keys: Sequence[tuple[Any, ...]]) -> list[int]:
    """All places, the lowest key of every cluster first, then the second of every cluster, and so on; within a round by key.

    clusters [0, 0, 1] with keys [(1,), (0,), (5,)] → [1, 2, 0].
    """
    rank = dict[int, int]()
    turn = np.zeros(len(keys), int)
    by_key = sorted(range(len(keys)), key=keys.__getitem__)
    for place in by_key:
        own = int(clusters[place])
        turn[place] = rank[own] = rank.get(own, -1) + 1
    return sorted(by_key, key=lambda place: turn[place])


def choose(vectors: np.ndarray, order: Sequence[int], target: int, max_cosine: float) -> tuple[list[int], list[int]]:
    """The first `target` places of `order`, none of which is nearer than max_cosine to one before it, and those left out."""
    chosen: list[int] = []
    near: list[int] = []
    kept = np.zeros((min(target, len(order)), vectors.shape[1]), vectors.dtype)
    for place in order:
        if len(chosen) == target:
            break
        if chosen and float((kept[: len(chosen)] @ vectors[place]).max()) > max_cosine:
            near.append(place)
        else:
            kept[len(chosen)] = vectors[place]
            chosen.append(place)
    return chosen, near


# --- embeddings ---------------------------------------------------------------------------------------------------------


def embed(texts: Sequence[str], work: Work, what: str) -> np.ndarray:
    """[N, D] of length 1 (or 0, of a text without words), float32. Raises UsageError where the embedder cannot be used."""
    config = work.config.diversify
    if not texts:
        return np.zeros((0, 1), np.float32)
    if config.embedder == "endpoint":
        vectors = asyncio.run(_from_endpoint(texts, config.url, config.model))
    elif config.embedder == "sentence_transformers":
        vectors = _from_sentence_transformers(texts, config.model)
    else:
        vectors = by_words(texts, config.dimensions, work.config.seed)
    if vectors.shape[0] != len(texts) or not np.isfinite(vectors).all():
        raise UsageError(f"the embedder gave {vectors.shape[0]} vectors for {len(texts)} {what}, or some that are no numbers")
    return unit(vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1; zero stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)


def by_words(texts: Sequence[str], dimensions: int, seed: int) -> np.ndarray:
    """TF-IDF of words and pairs of words, and its largest `dimensions` directions."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1, stop_words=None).fit_transform(texts)
    wanted = min(dimensions, *(size - 1 for size in table.shape))
    if wanted < 2:
        return np.asarray(table.toarray(), np.float32)
    return np.asarray(TruncatedSVD(wanted, random_state=seed, n_iter=7).fit_transform(table), np.float32)


def _from_sentence_transformers(texts: Sequence[str], model: str) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UsageError("diversify.embedder=sentence_transformers: pip install sentence-transformers, or use tfidf") from error
    try:
        return np.asarray(SentenceTransformer(model).encode(list(texts), show_progress_bar=False), np.float32)
    except (OSError, ValueError) as error:
        raise UsageError(f"diversify.model={model}: sentence-transformers cannot load it: {error}") from error


async def _from_endpoint(texts: Sequence[str], url: str, model: str) -> np.ndarray:
    """Of /embeddings, some texts a request. Nothing is kept of it: vectors are large, and made again cheaply."""
    config = TeacherConfig(base_url=url, model=model)
    found: list[Any] = []
    async with Endpoint(config, url) as endpoint:
        for start in range(0, len(texts), TOGETHER):
            asked = list(texts[start : start + TOGETHER])
            body = canonical_json({"model": model, "input": asked, "encoding_format": "float"})
            found += await _vectors(endpoint, config, body, len(asked))
    if len({len(vector) for vector in found}) > 1:
        raise UsageError(f"{url}/embeddings gave vectors of different lengths: check diversify.model={model}")
    return np.asarray(found, np.float32)


async def _vectors(endpoint: Endpoint, config: TeacherConfig, body: str, many: int) -> list[list[float]]:
    number = 0
    while True:
        number += 1
        try:
            reply = json.loads(await endpoint.post("/embeddings", body))
            vectors = [[float(value) for value in one["embedding"]] for one in sorted(reply["data"], key=lambda one: one["index"])]
            if len(vectors) != many or not all(vectors):
                raise ValueError(f"{len(vectors)} vectors for {many} texts, or empty ones")
            return vectors
        except AttemptError as error:
            if error.kind not in ("busy", "broken") or number >= config.max_attempts:
                raise UsageError(f"{endpoint.advice(error, f'tried {number} times')} (diversify.url, diversify.model)") from None
            await asyncio.sleep(backoff(config, error, number))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{endpoint.base_url}/embeddings gave no embeddings: {error!r}") from error
