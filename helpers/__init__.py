"""From an MMPose bottom-up checkpoint to poses on an MLU card or a CPU, one room per step.

The rooms, in the order the data walks: `errors`, `zoo`, `paths`, `fetch`, `preprocess`, `network`, `export`,
`backends`, `decode_numba`, `decode`, `estimator`, `dataset`, `calibration`, `records`, `journal`, `evaluate`,
`sensitivity`, `mm_run`, `benchmark`, `draw`, `report`, `video`, `explore`, `notebook`, `scale_out`, `cli`.

A room imports earlier rooms only. `network`, `export` and the `pytorch` backend need torch and mmpose; the rest runs on
numpy, OpenCV and an engine, plus pycocotools to score, matplotlib for figures, jinja2 and pillow for the report's page,
ipywidgets for controls, onnx to quantise, and ray for many devices.
"""
