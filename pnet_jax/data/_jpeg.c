/* A region of a JPEG without decoding the rest of it, on libjpeg-turbo (>= 1.5, for
 * jpeg_crop_scanline and jpeg_skip_scanlines). Optional: data/region.py does without it.
 *
 *   size(data)                             -> (height, width) or None
 *   decode(data, top, left, height, width) -> (pixels, first_column, columns) or None
 *   entropy_decode(data)                   -> whether all of it could be read
 *
 * None: not a picture that comes out like OpenCV's; the caller then decodes it by OpenCV. The GIL
 * is released while libjpeg works. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

typedef struct {
  struct jpeg_error_mgr manager; /* first, so that a pointer to it points to this */
  jmp_buf escape;
} Errors;

static void fail(j_common_ptr info) { longjmp(((Errors *)info->err)->escape, 1); }

/* A warning (level -1: damaged data) ends decoding; traces are not shown. */
static void complain(j_common_ptr info, int level) {
  if (level < 0) fail(info);
}

static void open_jpeg(struct jpeg_decompress_struct *info, Errors *errors) {
  info->err = jpeg_std_error(&errors->manager);
  errors->manager.error_exit = fail;
  errors->manager.emit_message = complain;
}

static void read_header(struct jpeg_decompress_struct *info, const Py_buffer *data) {
  jpeg_mem_src(info, (unsigned char *)data->buf, (unsigned long)data->len);
  jpeg_read_header(info, TRUE);
}

/* Gray and 8-bit YCbCr whose chroma is whole, or halved across, or halved both ways: what every
 * libjpeg-turbo upsamples to the same bits. */
static int is_usual(const struct jpeg_decompress_struct *info) {
  if (info->data_precision != 8) return 0;
  if (info->jpeg_color_space == JCS_GRAYSCALE) return info->num_components == 1;
  if (info->jpeg_color_space != JCS_YCbCr || info->num_components != 3) return 0;
  const jpeg_component_info *y = info->comp_info;
  if (!((y->h_samp_factor == 1 && y->v_samp_factor == 1) ||
        (y->h_samp_factor == 2 && (y->v_samp_factor == 1 || y->v_samp_factor == 2))))
    return 0;
  for (int i = 1; i < 3; i++)
    if (info->comp_info[i].h_samp_factor != 1 || info->comp_info[i].v_samp_factor != 1) return 0;
  return 1;
}

/* A file that was cut short may have all rows of a region; it is bad nevertheless. */
static int ends_whole(const Py_buffer *data) {
  const unsigned char *bytes = (const unsigned char *)data->buf;
  return bytes[data->len - 2] == 0xFF && bytes[data->len - 1] == JPEG_EOI;
}

static PyObject *size(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer data;
  if (!PyArg_ParseTuple(args, "y*", &data)) return NULL;
  struct jpeg_decompress_struct info = {0};
  Errors errors;
  volatile int usual = 0;
  volatile JDIMENSION height = 0, width = 0;
  open_jpeg(&info, &errors);
  if (!setjmp(errors.escape)) {
    jpeg_create_decompress(&info);
    read_header(&info, &data);
    usual = is_usual(&info) && ends_whole(&data);
    height = info.image_height;
    width = info.image_width;
  }
  jpeg_destroy_decompress(&info);
  PyBuffer_Release(&data);
  if (!usual) Py_RETURN_NONE;
  return Py_BuildValue("(II)", (unsigned int)height, (unsigned int)width);
}

static PyObject *decode(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer data;
  unsigned int top, left, height, width;
  if (!PyArg_ParseTuple(args, "y*IIII", &data, &top, &left, &height, &width)) return NULL;
  struct jpeg_decompress_struct info = {0};
  Errors errors;
  PyObject *volatile pixels = NULL;
  PyThreadState *volatile unlocked = PyEval_SaveThread();
  volatile int done = 0;
  volatile JDIMENSION first = 0, columns = 0;
  open_jpeg(&info, &errors);
  if (!setjmp(errors.escape)) {
    jpeg_create_decompress(&info);
    read_header(&info, &data);
    if (height && width && top <= info.image_height && height <= info.image_height - top &&
        left <= info.image_width && width <= info.image_width - left) {
      info.out_color_space = JCS_RGB;
      jpeg_start_decompress(&info);
      /* Upsampled chroma depends on its neighbours: decode one block more on both sides. */
      JDIMENSION block = (JDIMENSION)(info.max_h_samp_factor * DCTSIZE);
      JDIMENSION start = left > block ? left - block : 0;
      JDIMENSION end = left + width + block;
      if (end > info.output_width) end = info.output_width;
      JDIMENSION span = end - start;
      if (span < info.output_width) jpeg_crop_scanline(&info, &start, &span);
      first = start;
      columns = span;
      PyEval_RestoreThread(unlocked);
      pixels = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)height * (Py_ssize_t)span * 3);
      unlocked = PyEval_SaveThread();
      if (pixels != NULL) {
        unsigned char *out = (unsigned char *)PyBytes_AS_STRING(pixels);
        if (top > 0) jpeg_skip_scanlines(&info, top);
        for (unsigned int row = 0; row < height;) {
          JSAMPROW rows[16];
          unsigned int count = height - row < 16 ? height - row : 16;
          for (unsigned int i = 0; i < count; i++)
            rows[i] = out + (size_t)(row + i) * columns * 3;
          row += jpeg_read_scanlines(&info, rows, count);
        }
        done = 1;
      }
    }
  }
  jpeg_destroy_decompress(&info);
  PyEval_RestoreThread(unlocked);
  PyBuffer_Release(&data);
  if (PyErr_Occurred()) return NULL;
  if (!done) {
    Py_XDECREF(pixels);
    Py_RETURN_NONE;
  }
  return Py_BuildValue("(NII)", pixels, (unsigned int)first, (unsigned int)columns);
}

static PyObject *entropy_decode(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer data;
  if (!PyArg_ParseTuple(args, "y*", &data)) return NULL;
  struct jpeg_decompress_struct info = {0};
  Errors errors;
  volatile int done = 0;
  PyThreadState *unlocked = PyEval_SaveThread();
  open_jpeg(&info, &errors);
  if (!setjmp(errors.escape)) {
    jpeg_create_decompress(&info);
    read_header(&info, &data);
    jpeg_read_coefficients(&info);
    done = 1;
  }
  jpeg_destroy_decompress(&info);
  PyEval_RestoreThread(unlocked);
  PyBuffer_Release(&data);
  return PyBool_FromLong(done);
}

static PyMethodDef methods[] = {
    {"size", size, METH_VARARGS, "Height and width, or None."},
    {"decode", decode, METH_VARARGS, "RGB rows of a region, or None."},
    {"entropy_decode", entropy_decode, METH_VARARGS, "Reads all coefficients and no pixel."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_jpeg", "Regions of JPEGs, by libjpeg-turbo.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__jpeg(void) { return PyModule_Create(&module); }
