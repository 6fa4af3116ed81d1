"""A data set as Croissant metadata (docs.mlcommons.org/croissant/docs/croissant-spec.html), from its manifest."""

from pydantic import JsonValue

from data_contracts.digests import Digest, hex_of
from data_contracts.manifests import DatasetManifest
from pipelines.stages.protocols import Parts
from pipelines.stages.release.origins import learned_from


def croissant(parts: Parts, digest: Digest, manifest: DatasetManifest) -> dict[str, JsonValue]:
    """Croissant 1.0 of a data set's shards."""
    licences = sorted({origin.licence for origin in learned_from(parts.store, manifest)})
    fields = ("name", "subject", "origin", "row")
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{manifest.product}-{manifest.stage}",
        "description": f"{manifest.counts.rows_out} rows of the step {manifest.stage} of {manifest.product}",
        "version": "1.0.0",
        "identifier": digest,
        "license": [_licence_url(licence) for licence in licences],
        "isBasedOn": [source.url for source in manifest.sources],
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": "shards",
                "name": "shards",
                "encodingFormat": "application/x-parquet",
                "includes": f"rows/{hex_of(manifest.root)}/rows-*.parquet",
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"rows/{field}",
                        "name": field,
                        "dataType": "sc:Text",
                        "source": {"fileSet": {"@id": "shards"}, "extract": {"column": field}},
                    }
                    for field in fields
                ],
            }
        ],
    }


def _licence_url(licence: str) -> str:
    return f"https://spdx.org/licenses/{licence}" if licence.replace("-", "").replace(".", "").isalnum() else licence


_CONTEXT: dict[str, JsonValue] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
