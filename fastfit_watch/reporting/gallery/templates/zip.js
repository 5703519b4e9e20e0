"use strict";
(() => {
  // All pictures of a job as one zip, put together by the browser, so that no picture lies on the disk twice.
  // Format: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16, files stored as they are.
  const button = document.getElementById("zip");
  if (!button || location.protocol === "file:") return;
  button.hidden = false;
  const MOST_BYTES = 0xffffffff;
  const UTF8_NAMES = 0x0800;
  const table = Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
  const crc32 = (bytes) => {
    let value = 0xffffffff;
    for (const byte of bytes) value = table[(value ^ byte) & 255] ^ (value >>> 8);
    return ~value >>> 0;
  };
  // Numbers of two or four bytes, the lowest byte first.
  const pack = (...fields) => {
    const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
    let at = 0;
    for (const [size, value] of fields) {
      if (size === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += size;
    }
    return view.buffer;
  };
  const two = (value) => [2, value];
  const four = (value) => [4, value];
  const moment = (date) => [
    two((date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1)),
    two(((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate()),
  ];
  const read = async (file) => {
    const reply = await fetch(file);
    if (!reply.ok) throw new Error(`${file}: ${reply.status}`);
    return reply;
  };
  const makeZip = async (names, tell) => {
    const parts = [];
    const entries = [];
    let offset = 0;
    for (const [number, name] of names.entries()) {
      tell(`${number + 1} of ${names.length}`);
      const reply = await read(encodeURIComponent(name));
      const date = new Date(reply.headers.get("Last-Modified") || Date.now());
      const data = await reply.arrayBuffer();
      const label = new TextEncoder().encode(name);
      const facts = [
        two(20), two(UTF8_NAMES), two(0), ...moment(date), four(crc32(new Uint8Array(data))), four(data.byteLength),
        four(data.byteLength), two(label.length), two(0),
      ];
      entries.push(pack(four(0x02014b50), two(20), ...facts, two(0), two(0), two(0), four(0), four(offset)), label);
      const header = pack(four(0x04034b50), ...facts);
      parts.push(new Blob([header, label, data]));
      offset += header.byteLength + label.length + data.byteLength;
      if (offset > MOST_BYTES) throw new Error("more than 4 GB");
    }
    const index = new Blob(entries);
    const count = names.length;
    const end = pack(four(0x06054b50), two(0), two(0), two(count), two(count), four(index.size), four(offset), two(0));
    return new Blob([...parts, index, end], { type: "application/zip" });
  };
  button.addEventListener("click", async () => {
    const words = button.textContent;
    const tell = (text) => (button.textContent = text);
    button.disabled = true;
    try {
      const report = await (await read("report.json")).json();
      const names = report.looks.map((look) => look.file).filter(Boolean);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await makeZip(names, tell));
      link.download = `${report.job}.zip`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      tell(words);
    } catch (error) {
      tell(`No zip: ${error.message}`);
    }
    button.disabled = false;
  });
})();
