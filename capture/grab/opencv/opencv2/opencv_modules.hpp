// The modules of OpenCV that fovea-grab is compiled against. It is found before
// OpenCV's own file of this name, which lists every module of the full
// development package and so asks for headers that a small install lacks.
#pragma once
#define HAVE_OPENCV_CORE
#define HAVE_OPENCV_IMGCODECS
#define HAVE_OPENCV_IMGPROC
#define HAVE_OPENCV_VIDEOIO
