"""From an MMPose bottom-up checkpoint to poses on an MLU card or a CPU. This is the map; nothing is imported.

A checkpoint goes in at the top; an image and a number come out at the bottom.

    errors, zoo, keypoints, paths, artifacts     the ground floor: errors, networks, keypoints, names, made files
    images, dataset, fetch                       image files, COCO-format folders, downloads
    export/        network         checkpoint -> torch module
                   export          -> ONNX, compared with PyTorch
                   mmpose_chain    MMPose's own chain, the baseline
    backends/      base            the contract of all engines
                   onnxruntime, openvino, pytorch, magicmind, mm_run
                   calibration, quantize, sensitivity
    pose/          preprocess      image -> network input
                   maps, decode, decode_numba    network output -> poses: the lesson, and the same steps compiled
                   estimator, video         images and videos -> poses
    measure/       evaluate, oks   COCO AP and AR, resumed where a run stopped; who is who in two sets of poses
                   benchmark, roofline, machine, records, tables
    show/          draw            skeletons on pixels
                   figures, report, explore, notebook
    pipeline       weights -> ONNX -> engine -> estimator: the front door
    infer, scale_out, cli          many images, many devices, the command line

Arrows run one way: the ground floor <- export, backends, pose <- measure <- show <- the rest. Only `export/` and
`backends/pytorch` need torch and mmpose. The rest runs on NumPy, OpenCV and an engine, plus pycocotools to score,
Matplotlib for figures, jinja2 and Pillow for the report, ipywidgets for controls, onnx to quantize, Ray to scale out.
"""
