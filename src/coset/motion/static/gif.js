"use strict";
// GIF89a of pictures (arrays of red, green, blue, alpha): one palette of the commonest colours, packed by LZW.

function paletteOf(pictures) {
  const counts = new Uint32Array(32768);
  for (const pixels of pictures) for (let i = 0; i < pixels.length; i += 4) counts[(pixels[i] >> 3) << 10 | (pixels[i + 1] >> 3) << 5 | pixels[i + 2] >> 3]++;
  const common = Array.from(counts.keys()).filter((bin) => counts[bin]).sort((a, b) => counts[b] - counts[a]).slice(0, 256);
  const parts = (bin) => [bin >> 10, (bin >> 5) & 31, bin & 31];
  const entries = common.map(parts), nearest = new Int16Array(32768).fill(-1);
  return {
    // Five bits a channel, spread over eight so that white stays white.
    bytes: entries.flatMap((c) => c.map((v) => (v << 3) | (v >> 2))),
    numberOf(red, green, blue) {
      const bin = (red >> 3) << 10 | (green >> 3) << 5 | blue >> 3;
      if (nearest[bin] < 0) {
        const [r, g, b] = parts(bin);
        let least = Infinity;
        entries.forEach(([x, y, z], i) => { const d = (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2; if (d < least) { least = d; nearest[bin] = i; } });
      }
      return nearest[bin];
    },
  };
}

class Bytes {
  constructor() { this.data = new Uint8Array(1 << 16); this.length = 0; }
  push(...values) {
    if (this.length + values.length > this.data.length) { const more = new Uint8Array(2 * this.data.length + values.length); more.set(this.data); this.data = more; }
    this.data.set(values, this.length);
    this.length += values.length;
  }
}

function packInto(out, numbers, table) {
  const CLEAR = 256, END = 257, block = [];
  let size = 9, next = 258, bits = 0, held = 0;
  const put = (code) => {
    held |= code << bits;
    for (bits += size; bits >= 8; bits -= 8) {
      block.push(held & 255);
      held >>>= 8;
      if (block.length === 255) { out.push(255, ...block); block.length = 0; }
    }
  };
  table.fill(0);
  out.push(8);
  put(CLEAR);
  let prefix = numbers[0];
  for (let i = 1; i < numbers.length; i++) {
    const key = prefix << 8 | numbers[i];
    if (table[key]) { prefix = table[key]; continue; }
    put(prefix);
    if (next === 4096) {
      put(CLEAR);
      table.fill(0);
      next = 258;
      size = 9;
    } else {
      if (next >= 1 << size) size++;
      table[key] = next++;
    }
    prefix = numbers[i];
  }
  put(prefix);
  put(END);
  if (bits) block.push(held & 255);
  if (block.length) out.push(block.length, ...block);
  out.push(0);
}

// Pictures of one size; hundredths of a second that each is shown.
function gifOf(pictures, width, height, hundredths) {
  const palette = paletteOf(pictures.filter((_, i) => i % Math.ceil(pictures.length / 8) === 0)), out = new Bytes(), table = new Uint16Array(1 << 20);
  const two = (value) => [value & 255, value >> 8], text = (value) => [...value].map((c) => c.charCodeAt(0));
  out.push(...text("GIF89a"), ...two(width), ...two(height), 0xf7, 0, 0);
  out.push(...palette.bytes, ...new Array(768 - palette.bytes.length).fill(0));
  out.push(0x21, 0xff, 11, ...text("NETSCAPE2.0"), 3, 1, 0, 0, 0);
  const numbers = new Uint8Array(width * height);
  for (const pixels of pictures) {
    for (let i = 0; i < numbers.length; i++) numbers[i] = palette.numberOf(pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2]);
    out.push(0x21, 0xf9, 4, 4, ...two(hundredths), 0, 0, 0x2c, 0, 0, 0, 0, ...two(width), ...two(height), 0);
    packInto(out, numbers, table);
  }
  out.push(0x3b);
  return out.data.subarray(0, out.length);
}
