// A page opened from a folder may start no worker, and the search is one. Here it runs in a hidden frame of the page
// instead: no request leaves the machine, no server is needed.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.frame = frame;
      this.inside = frame.contentWindow;
      this.heard = (event) => {
        if (event.source !== this.inside) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      window.addEventListener("message", this.heard);
      const page = this.inside.document;
      page.open();
      page.write("<!doctype html><script>postMessage = (data) => parent.postMessage(data, '*')</" + "script>");
      page.close();
      this.ready = new Promise((done, failed) => {
        const script = page.createElement("script");
        script.onload = done;
        script.onerror = failed;
        script.src = url;
        page.documentElement.appendChild(script);
      });
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data, source: parent })));
    }
    terminate() {
      window.removeEventListener("message", this.heard);
      this.frame.remove();
    }
  };
}
