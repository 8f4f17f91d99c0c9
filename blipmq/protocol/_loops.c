/* The loops of loops.py, compiled. Both give the same results for the same arguments: whatever is
 * changed here is changed there. Bounds are checked against the buffer, not trusted.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum {
    LENGTH_BYTES = 4,
    LENGTH_MIN = 9,
    TYPE_AT = 4,
    CORRELATION_ID_AT = 5,
    QOS_AT = 13,
    TOPIC_LENGTH_AT = 14,
    TOPIC_AT = 16,
    PUBLISH = 3,
};

static PyObject *array_type;

static uint32_t read_u32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void write_u64(unsigned char *at, uint64_t value)
{
    for (int i = 7; i >= 0; i--) {
        at[i] = (unsigned char)value;
        value >>= 8;
    }
}

/* A growing list of offsets, in the layout of array("I"). */
typedef struct {
    uint32_t *items;
    size_t count;
    size_t room;
} Offsets;

static int add_offset(Offsets *offsets, Py_ssize_t offset)
{
    if (offsets->count == offsets->room) {
        size_t room = offsets->room ? 2 * offsets->room : 64;
        uint32_t *items = PyMem_Realloc(offsets->items, room * sizeof *items);
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        offsets->items = items;
        offsets->room = room;
    }
    offsets->items[offsets->count++] = (uint32_t)offset;
    return 0;
}

static PyObject *as_array(const Offsets *offsets)
{
    return PyObject_CallFunction(array_type, "sy#", "I", (const char *)offsets->items,
                                 (Py_ssize_t)(offsets->count * sizeof *offsets->items));
}

/* Whether frames may be looked for in data[start:end]. */
static int check_bounds(const Py_buffer *data, Py_ssize_t start, Py_ssize_t end)
{
    if (start < 0 || end > data->len || data->len > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "the bounds are not in the buffer");
        return -1;
    }
    return 0;
}

static PyObject *scan_publishes(PyObject *module, PyObject *args)
{
    Py_buffer data, head;
    Py_ssize_t start, end, stride, length_max;
    Offsets offsets = {NULL, 0, 0};
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "y*nnny*n", &data, &start, &end, &stride, &head, &length_max))
        return NULL;
    if (check_bounds(&data, start, end) < 0)
        goto done;
    const unsigned char *bytes = data.buf;
    const Py_ssize_t length_min = LENGTH_MIN + head.len;
    const Py_ssize_t last = end - LENGTH_BYTES - length_min;
    Py_ssize_t at = start + stride;
    if (add_offset(&offsets, start) < 0 || add_offset(&offsets, at) < 0)
        goto done;
    while (at >= 0 && at <= last) {
        if (bytes[at + TYPE_AT] != PUBLISH ||
            memcmp(bytes + at + QOS_AT, head.buf, (size_t)head.len) != 0)
            break;
        const Py_ssize_t length = read_u32(bytes + at);
        at += LENGTH_BYTES + length;
        if (length < length_min || length > length_max || at > end)
            break;
        if (add_offset(&offsets, at) < 0)
            goto done;
    }
    result = as_array(&offsets);
done:
    PyMem_Free(offsets.items);
    PyBuffer_Release(&data);
    PyBuffer_Release(&head);
    return result;
}

/* The topic as the object that `known` has of it, borrowed; NULL without an error: it is none. */
static PyObject *known_topic(PyObject *known, Py_ssize_t known_max, const char *name,
                             Py_ssize_t size)
{
    PyObject *topic = PyBytes_FromStringAndSize(name, size);
    if (topic == NULL)
        return NULL;
    PyObject *found = PyDict_GetItemWithError(known, topic);
    if (found == NULL && !PyErr_Occurred() && size > 0) {
        PyObject *text = PyUnicode_DecodeUTF8(name, size, NULL);
        if (text == NULL) {
            if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
                PyErr_Clear();
        } else {
            Py_DECREF(text);
            if (PyDict_Size(known) >= known_max)
                PyDict_Clear(known);
            if (PyDict_SetItem(known, topic, topic) == 0)
                found = PyDict_GetItemWithError(known, topic);
        }
    }
    Py_DECREF(topic);
    return found;
}

static PyObject *scan_topics(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Py_ssize_t start, end, length_max, known_max;
    PyObject *known, *result = NULL;
    Offsets offsets = {NULL, 0, 0};

    if (!PyArg_ParseTuple(args, "y*nnnO!n", &data, &start, &end, &length_max, &PyDict_Type,
                          &known, &known_max))
        return NULL;
    PyObject *topics = PyList_New(0);
    if (topics == NULL || check_bounds(&data, start, end) < 0)
        goto done;
    const unsigned char *bytes = data.buf;
    const Py_ssize_t last = end - TOPIC_AT - 1;
    Py_ssize_t at = start;
    if (add_offset(&offsets, at) < 0)
        goto done;
    while (at <= last) {
        const unsigned char *frame = bytes + at;
        const Py_ssize_t length = read_u32(frame);
        const Py_ssize_t behind = at + LENGTH_BYTES + length;
        if (frame[TYPE_AT] != PUBLISH || frame[QOS_AT] || behind > end || length > length_max)
            break;
        const Py_ssize_t size = frame[TOPIC_LENGTH_AT] << 8 | frame[TOPIC_LENGTH_AT + 1];
        if (at + TOPIC_AT + size > behind)
            break;
        PyObject *topic = known_topic(known, known_max, (const char *)frame + TOPIC_AT, size);
        if (topic == NULL) {
            if (PyErr_Occurred())
                goto done;
            break;
        }
        if (PyList_Append(topics, topic) < 0 || add_offset(&offsets, behind) < 0)
            goto done;
        at = behind;
    }
    PyObject *found = as_array(&offsets);
    if (found != NULL) {
        result = PyTuple_Pack(2, found, topics);
        Py_DECREF(found);
    }
done:
    Py_XDECREF(topics);
    PyMem_Free(offsets.items);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *stamp_range(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Py_ssize_t start, stride, count;
    unsigned long long first;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "w*nnnK", &data, &start, &stride, &count, &first))
        return NULL;
    if (start < 0 || stride < CORRELATION_ID_AT + 8 || count < 0 || start > data.len ||
        count > (data.len - start) / stride) {
        PyErr_SetString(PyExc_ValueError, "the frames are not in the buffer");
    } else {
        unsigned char *at = (unsigned char *)data.buf + start + CORRELATION_ID_AT;
        for (Py_ssize_t i = 0; i < count; i++, at += stride)
            write_u64(at, first + (uint64_t)i);
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&data);
    return result;
}

static PyObject *stamp_offsets(PyObject *module, PyObject *args)
{
    Py_buffer data, offsets;
    unsigned long long first;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "w*y*K", &data, &offsets, &first))
        return NULL;
    if (offsets.itemsize != sizeof(uint32_t) || offsets.len < (Py_ssize_t)sizeof(uint32_t)) {
        PyErr_SetString(PyExc_ValueError, "the offsets are no array of u32");
        goto done;
    }
    const uint32_t *at = offsets.buf;
    const Py_ssize_t count = offsets.len / (Py_ssize_t)sizeof(uint32_t) - 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        const Py_ssize_t place = (Py_ssize_t)at[i] + CORRELATION_ID_AT;
        if (place + 8 > data.len) {
            PyErr_SetString(PyExc_ValueError, "the frames are not in the buffer");
            goto done;
        }
        write_u64((unsigned char *)data.buf + place, first + (uint64_t)i);
    }
    result = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    return result;
}

static PyMethodDef methods[] = {
    {"scan_publishes", scan_publishes, METH_VARARGS, NULL},
    {"scan_topics", scan_topics, METH_VARARGS, NULL},
    {"stamp_range", stamp_range, METH_VARARGS, NULL},
    {"stamp_offsets", stamp_offsets, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_loops", "The loops of loops.py, compiled.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__loops(void)
{
    PyObject *array = PyImport_ImportModule("array");
    if (array == NULL)
        return NULL;
    array_type = PyObject_GetAttrString(array, "array");
    Py_DECREF(array);
    return array_type == NULL ? NULL : PyModule_Create(&definition);
}
